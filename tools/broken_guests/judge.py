"""Runs a broken guest, and judges what trapline tells of it by what was broken."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

import trapline
from trapline.arch.registers import RFLAGS
from trapline.explain.explanation import Explanation
from trapline.report.result import Ending
from trapline.report.run import Run

from . import places
from .generate import Broken
from .handlers import ENDLESS, FAULTS

_ENDLESS: Final = {"unicorn": 1.0, "qemu": 4.0}
"""Seconds for a guest that does not end by itself, by processor; QEMU has to start first."""
_AGAIN: Final = 15.0
"""For one of which nothing was told then: on a busy machine it may not have come that far."""
_TIMEOUT: Final = 60.0
"""For any other."""
_STORM: Final = re.compile(r"#\w+ at .* is raised again and again: .*Its handler returns to the same instruction")


class Verdict(Enum):
    """What was told of a guest."""

    RIGHT = "right"
    FACTS = "only facts"
    NOTHING = "nothing"
    WRONG = "WRONG"
    RUNS_ON = "runs on"
    """The processor does not raise the exception, and nothing was told."""
    FAILED = "failed"
    """Trapline ended the run by an error."""


class Judged(NamedTuple):
    """The verdict on a guest, and what it is about."""

    verdict: Verdict
    told: tuple[str, ...]
    ending: str
    why: str = ""


def repaired(guest: Broken, result: Run) -> bytes | None:
    """Return the image with the repair that is proposed for the exception that a guest never came back from.

    None: none is, or it changes a register, or memory that is not in the image.
    """
    explanation = result.unreturned[-1].explanation if result.unreturned else None
    image = bytearray(guest.image)
    for change in () if explanation is None else explanation.changes:
        for gpa, data in change.stores:
            at = gpa - places.LOAD
            if change.registers or not 0 <= at <= len(image) - len(data):
                return None
            image[at : at + len(data)] = data
    return bytes(image) if image != guest.image else None


def is_repaired(before: Run, after: Run) -> bool:
    """Say whether the exception of the first run is not raised any more with the repair of it."""
    record = before.unreturned[-1].record
    same = record.vector, record.error_code, record.rip, record.vectoring
    return all((each.vector, each.error_code, each.rip, each.vectoring) != same for each in after.exceptions)


def run(image: bytes, folder: Path, processor: str, timeout: float = _TIMEOUT) -> Run:
    """Run an image. Raises TraplineError."""
    path = folder / "guest"
    path.write_bytes(image)
    return trapline.run(path, exceptions="all", processor=processor, memory="16M", timeout=timeout)


def judge(guest: Broken, folder: Path, processor: str) -> tuple[Judged, Run]:
    """Run a guest, and again with the repair that is proposed, if there is one in memory. Raises TraplineError."""
    endless = guest.style in ENDLESS
    result = run(guest.image, folder, processor, _ENDLESS[processor] if endless else _TIMEOUT)
    judged = judge_run(guest, result)
    if endless and judged.verdict is Verdict.NOTHING:
        result = run(guest.image, folder, processor, _AGAIN)
        judged = judge_run(guest, result)
    image = repaired(guest, result)
    if image is None:
        return judged, result
    after = run(image, folder, processor, _ENDLESS[processor])
    if after.ending is Ending.FAILED:
        return Judged(Verdict.FAILED, judged.told, after.ending.value, f"with the repair: {after.error}"), after
    if not is_repaired(result, after):
        return judged._replace(verdict=Verdict.WRONG, why="the repair does not help"), result
    return judged, result


def judge_run(guest: Broken, result: Run) -> Judged:
    """Judge what is told of a run of the guest by what was broken."""
    told, ending, planted = tuple(clauses(result)), result.ending.value, guest.planted
    if result.ending is Ending.FAILED and any(
        re.search(pattern, each) for pattern in planted.right for each in result.warnings
    ):
        return Judged(Verdict.RIGHT, result.warnings, ending)  # a state that VMRUN refuses
    if result.ending is Ending.FAILED or any("an error in trapline" in finding for finding in result.findings):
        return Judged(Verdict.FAILED, told, ending, f"{result.error or result.detail}")
    if succeeded(result):
        verdict = Verdict.WRONG if told else Verdict.RUNS_ON
        return Judged(verdict, told, ending, "a guest that did all")
    faults = guest.style == FAULTS
    allowed = *planted.right, *planted.facts, *(("ud2 always raises #UD",) if faults else ())
    for clause in told:
        if not any(re.search(pattern, clause) for pattern in allowed):
            return Judged(Verdict.WRONG, told, ending, clause)
    named = {int(each.record.vector) for each in (result.unreturned[-1:] if faults else result.unreturned[:1])}
    if named - set(planted.vectors):
        return Judged(Verdict.WRONG, told, ending, f"the exception {named}")
    if any(re.search(pattern, clause) for pattern in planted.right for clause in told):
        return Judged(Verdict.RIGHT, told, ending)
    return Judged(Verdict.FACTS if told or named else Verdict.NOTHING, told, ending)


def judge_twin(guest: Broken, folder: Path, processor: str) -> Judged:
    """Run the guest without its fault: it ends well, and nothing is told."""
    result = run(guest.twin, folder, processor)
    told = tuple(clauses(result))
    verdict = Verdict.RUNS_ON if succeeded(result) and not told and not result.unreturned else Verdict.WRONG
    return Judged(verdict, told, result.ending.value)


def succeeded(result: Run) -> bool:
    """Say whether a guest came to its end."""
    return result.ending is Ending.DEBUG_EXIT and result.exit_value == 0


def clauses(result: Run) -> Iterator[str]:
    """Yield all that is said of causes, clause by clause."""
    for finding in result.findings:
        if finding.startswith("Where it was is not known"):
            continue  # of the machine: it was too busy to stop it
        start = _STORM.match(finding)
        if start is None:
            yield finding
            continue
        rest = finding[start.end() :]
        yield from _parts(re.sub(r"^(, and at the end nothing has changed: |\.$| with )", "", rest))
    explanations = [each.explanation for each in result.unreturned] + [result.explanation]
    for explanation in explanations:
        if explanation is not None:
            yield from _of(explanation)
    registers = None if result.crash is None else result.crash.registers
    alone = result.ending is Ending.HALTED and not result.unreturned and not result.findings
    if alone and registers is not None and not registers.rflags & RFLAGS.IF:
        yield "interrupts off, in HLT"


def _of(explanation: Explanation) -> Iterator[str]:
    if explanation.origin is not None and explanation.origin.reason is not None:
        yield from _parts(explanation.origin.reason)
    for cause in explanation.causes:
        yield from _parts(cause)
    if explanation.unproven is not None:
        yield from _parts(explanation.unproven)


def _parts(text: str) -> Iterator[str]:
    for part in text.split("; "):
        if part:
            yield part
