"""One program under both machines and every mask, and what differs."""

from dataclasses import dataclass, field
from typing import Final

from trapline.arch.vectors import FORCEABLE

from .compare import Difference, first_difference
from .departures import departure
from .program import Program
from .runner import End, Run, Runner

_PATIENCE: Final = 20.0
"""Seconds for a program that has come to its end once."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a program."""

    forced: Run
    """The run with every exception forced, each seen by the hypervisor."""
    compared: bool
    """False: it was stopped, so that there is nothing to compare."""
    wrong: list[Difference] = field(default_factory=list)
    """Differences that no departure explains."""
    known: str | None = None
    """The departure of QEMU or Unicorn that explains the difference between them; None: there is none."""


def try_program(program: Program, unicorn: Runner, qemu: Runner | None = None, *, ask_qemu: bool = False) -> Findings:
    """Run a program with no exception forced and with all of them, and under QEMU if there is one.

    `ask_qemu`: the hypervisor sees each exception of QEMU's run, too. What differs is tried again: where the machine's
    timer comes in the middle of a block of code, Unicorn does not check operands until its end (`unicorn.simd`).
    """
    findings = _try_once(program, unicorn, qemu, ask_qemu=ask_qemu)
    return _try_once(program, unicorn, qemu, ask_qemu=ask_qemu) if findings.wrong else findings


def _try_once(program: Program, unicorn: Runner, qemu: Runner | None, *, ask_qemu: bool) -> Findings:
    forced = unicorn.run(program, FORCEABLE, ask=True)
    if forced.end not in (End.HALT, End.SHUTDOWN):
        return Findings(forced, compared=False)
    plain, forwarded = _patient(unicorn, program, 0), _patient(unicorn, program, FORCEABLE)
    found = [first_difference(program, forced, plain, records=False), first_difference(program, forced, forwarded)]
    known = None
    if qemu is not None:
        difference = first_difference(program, forced, _patient(qemu, program, FORCEABLE, ask=ask_qemu))
        known = departure(difference) if difference is not None else None
        if known is None:
            found.append(difference)
    return Findings(forced, compared=True, wrong=[each for each in found if each is not None], known=known)


def _patient(runner: Runner, program: Program, mask: int, *, ask: bool = False) -> Run:
    """Run a program; one that takes too long, on a host with much else to do, is repeated."""
    run = runner.run(program, mask, ask=ask)
    return runner.run(program, mask, ask=ask, seconds=_PATIENCE) if run.end is End.TIME else run
