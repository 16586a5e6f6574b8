"""`trapline explain`: explains the double and triple faults in a file of `run -o`, and where its guest ended."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trapline.asm.disassembler import instruction
from trapline.errors import UsageError
from trapline.explain.evidence import Evidence, from_stored
from trapline.explain.explanation import Explanation
from trapline.explain.stored import explainable
from trapline.report import text
from trapline.symbols import Names
from trapline.trace.stored import StoredEvidence, StoredRecord, read_stored

from .terminal import tell, width_of


class Explained(NamedTuple):
    """What is printed of one piece of a file."""

    record: int | None
    """The number of its last record."""
    title: str
    explanation: Explanation


def explain_file(name: str, names: Names, *, syntax: str, as_json: bool) -> int:
    """Print the explanation of each double and triple fault of a stored run, oldest first, and of where it ended."""
    outcomes: set[str] = set()
    told = _print(_explained(_evidence(name, outcomes), names, syntax), as_json=as_json)
    if not told and not outcomes:
        raise UsageError(
            f"{name}: not a trace: it has no line of JSON for an exception, as run -o and import write them"
        )
    if as_json:
        tell("]" if told else "[]")
    elif not told and outcomes & {"combined", "shutdown"}:
        tell("the file has a double or triple fault, but no evidence to explain it")
    elif not told:
        tell("the file has no double or triple fault")
    return 0


def _evidence(name: str, outcomes: set[str]) -> Iterator[Evidence]:
    """Yield the evidence in a file, and collect what became of the exceptions. Raises UsageError with its name."""
    try:
        with Path(name).open("rb") as file:
            yield from _read(file, outcomes)
    except (OSError, ValueError) as error:  # a NUL in the name
        raise UsageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _read(file: BinaryIO, outcomes: set[str]) -> Iterator[Evidence]:
    for number, line in read_stored(file):
        if isinstance(line, StoredRecord):
            outcomes.add(str(line.outcome))
        if not isinstance(line, StoredEvidence):
            continue
        try:
            piece = from_stored(line)
        except UsageError as error:
            raise UsageError(f"line {number} is damaged: {error}") from error
        yield piece


def _explained(evidence: Iterator[Evidence], names: Names, syntax: str) -> Iterator[Explained]:
    shown = partial(instruction, syntax=syntax)
    for each in explainable(evidence):
        yield Explained(each.record, each.title, each.explanation(names.text, shown))


def _print(explained: Iterator[Explained], *, as_json: bool) -> int:
    """Print explanations as they come, as JSON without the last bracket; return how many there were."""
    told = 0
    for record, title, explanation in explained:
        if as_json:
            print(end=", " if told else "[")
            json.dump({"seq": record, **explanation.to_json()}, sys.stdout)
        else:
            tell(*text.explanation(title, explanation, width_of(sys.stdout)))
        told += 1
    return told
