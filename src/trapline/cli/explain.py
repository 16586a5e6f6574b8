"""`trapline explain`: explains the double and triple faults in a file of `run -o`, and where its guest ended."""

import json
import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from trapline.asm.disassembler import instruction
from trapline.errors import UsageError
from trapline.explain.blackbox import each_chain
from trapline.explain.evidence import Evidence, from_stored
from trapline.explain.explain import explain, explain_delivered
from trapline.explain.explanation import Explanation
from trapline.report import text
from trapline.symbols import Names
from trapline.trace.stored import StoredEvidence, StoredRecord, read_stored

from .terminal import tell, width_of

_UNRETURNED: Final = 64
"""How many exceptions that a guest never came back from are explained: a run tells two."""


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
    """Yield the explanation of each fatal chain, then of the exceptions that the guest never came back from."""
    shown = partial(instruction, syntax=syntax)
    unreturned = deque[Evidence](maxlen=_UNRETURNED)

    def others() -> Iterator[Evidence]:
        for piece in evidence:
            if piece.unreturned:
                unreturned.append(piece)
            else:
                yield piece

    for chain in each_chain(others()):
        if any(piece.fatal for piece in chain):
            record = chain[-1].sequence
            title = "at the end" if record is None else f"up to record {record}"
            yield Explained(record, title, explain(chain, name=names.text, disassemble=shown))
    for piece in unreturned:
        title = f"record {piece.sequence}, which the guest never came back from"
        yield Explained(piece.sequence, title, explain_delivered(piece, name=names.text, disassemble=shown))


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
