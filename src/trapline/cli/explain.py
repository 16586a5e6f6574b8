"""`trapline explain`: explains the double and triple faults in a file of `run -o`, and where its guest ended."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from trapline.asm.disassembler import instruction
from trapline.explain.evidence import Evidence
from trapline.explain.explanation import Explanation
from trapline.explain.stored import evidence_of, explainable
from trapline.explain.unexplained import Unexplained
from trapline.report import text
from trapline.symbols import Names
from trapline.symbols.loaded import LoadedImages
from trapline.trace.files import open_trace

from .terminal import tell, width_of


class Explained(NamedTuple):
    """What is printed of one piece of a file."""

    record: int | None
    """The number of its last record."""
    title: str
    explanation: Explanation


def explain_file(name: str, names: Names, *, syntax: str, as_json: bool) -> int:
    """Print the explanation of each double and triple fault of a stored run, oldest first, and of where it ended.

    Return the exit code: 1 where an error of trapline's own took the place of an explanation.
    """
    outcomes: set[str] = set()
    unexplained = Unexplained()
    with open_trace(name) as trace:
        told = _print(_explained(evidence_of(trace, outcomes), names, syntax, unexplained), as_json=as_json)
    if as_json:
        tell("]" if told else "[]")
    elif not told and outcomes & {"combined", "shutdown"}:
        tell("the file has a double or triple fault, but no evidence to explain it")
    elif not told:
        tell("the file has no double or triple fault")
    return 1 if unexplained.told else 0


def _explained(
    evidence: Iterator[Evidence], names: Names, syntax: str, unexplained: Unexplained
) -> Iterator[Explained]:
    shown, images = partial(instruction, syntax=syntax), LoadedImages(names)
    for each in explainable(evidence):
        images.place(each.images)
        yield Explained(each.record, each.title, each.explanation(names.text, shown, unexplained))


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
