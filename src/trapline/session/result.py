"""Makes the result of a run from its session."""

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.arch.vectors import Vector
from trapline.devices.power import SUCCESS
from trapline.devices.text_screen import screen_lines
from trapline.errors import TraplineError
from trapline.hypervisor.stop import Stop, StopReason
from trapline.report.result import Count, Ending, Place, Violation
from trapline.report.run import Run
from trapline.trace.exception_record import linear_rip

from .ending import Moment
from .settings import UNICORN

if TYPE_CHECKING:
    from .session import Session


_WITH_CONTEXT: Final = frozenset({Ending.SHUTDOWN, Ending.RULE, Ending.EXCEPTION})
_LOST: Final = frozenset({Ending.RESET, Ending.DEBUG_EXIT})
"""After these the guest's state is gone."""
_BY_GUEST: Final = frozenset({Ending.OFF, Ending.DEBUG_EXIT})
_UNSEEN: Final = "Where it was is not known: it could not be stopped, for it takes no NMI (its local APIC may be off)."


class Stopped(NamedTuple):
    """A guest after a timeout or an interrupt."""

    halted: bool = True
    """Whether it could be stopped."""
    known: frozenset[int] | None = None
    """Of the exceptions that it has not come back from, the numbers of the records to tell; None: all."""


def result(
    session: "Session",
    stop: Stop | None,
    error: BaseException | None = None,
    violations: tuple[Violation, ...] = (),
    unreached: tuple[str, ...] = (),
    *,
    ruled: bool = False,
    stopped: Stopped | None = Stopped(),  # noqa: B008  # immutable
    ended: float | None = None,
) -> Run:
    """Return the result of a run that ended with a stop or an error.

    `ruled`: a rule stopped it. `stopped`: how the guest is seen after a timeout or an interrupt; None: it is not.
    `ended`: when, on the clock of `time.monotonic`; None: now.
    """
    processor = session.processor
    explanation = crash = None
    if stop is None:
        ending = Ending.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Ending.FAILED
    else:
        ending = Ending.RULE if ruled else _ending(stop, processor.exit_status)
        if stop.reason is not StopReason.OFF:
            session.place_symbols()
        explanation = session.explanation(stop)
        crash = session.crash(explanation) if ending in _WITH_CONTEXT else None
    if session.crashed:
        crash = session.crash()
    last = _last(session, ending, stopped)
    if last is not None:
        crash = last.crash
    findings = () if last is None else last.findings
    unreturned = () if last is None else last.unreturned
    if last is None and ending in _BY_GUEST:
        unreturned = session.explainer.in_double_fault_task()
    if ending is Ending.SHUTDOWN:
        findings = session.explainer.machine_findings()
        unreturned = session.before_shutdown()
    if stopped is not None and not stopped.halted and ending is Ending.TIMEOUT:
        findings = (_UNSEEN,)
    warnings = session.explainer.warnings()
    failure = error if isinstance(error, TraplineError) else None
    return Run(
        ending=ending,
        detail=str(failure) if failure else stop.detail if stop is not None else "",
        processor=session.processor_name,
        why=session.why,
        exit_status=processor.exit_status,
        seconds=(time.monotonic() if ended is None else ended) - session.started,
        recorded=session.recorder.tally.total,
        where=None if session.where is None else session.where.text,
        forced=session.forced | session.vm.mask,
        exits=processor.statistics.exits,
        stopped_seconds=processor.statistics.stopped,
        counts=_counts(session),
        exceptions=session.recorder.exceptions(),
        crash=crash,
        explanation=explanation,
        unreturned=unreturned,
        findings=(*findings, *session.explainer.unexplained),
        screen=_screen(session, stop) if last is None else last.screen,
        warnings=warnings,
        hints=tuple(processor.hints),
        violations=violations,
        unreached=unreached,
        unplaced=tuple(symbols.name for symbols in session.names.unplaced),
        console=session.console.output,
        error=failure,
    )


def _last(session: "Session", ending: Ending, stopped: Stopped | None) -> Moment | None:
    """Return the guest at an ending that was not its own success; None: it was, or the state is not known."""
    if ending in _LOST:
        return None if session.processor.exit_status == SUCCESS else session.departure
    if ending is Ending.HALTED:
        return session.moment(stuck=True, outside=True)
    if ending in (Ending.TIMEOUT, Ending.INTERRUPTED) and stopped is not None and stopped.halted:
        return session.moment(stopped.known, outside=True)
    return None


def _screen(session: "Session", stop: Stop | None) -> tuple[str, ...]:
    """Return the screen of a stopped guest. When QEMU has ended there is none."""
    if stop is None or (stop.reason is StopReason.OFF and session.processor_name != UNICORN):
        return ()
    return screen_lines(session.processor.read_screen())


def _ending(stop: Stop, exit_status: int | None) -> Ending:
    if stop.reason is StopReason.OFF and exit_status is not None:
        return Ending.DEBUG_EXIT
    return Ending.__members__.get(stop.reason.name, Ending.STOPPED)


def _counts(session: "Session") -> tuple[Count, ...]:
    def found(rip: int, cs_base: int) -> Place:
        address = linear_rip(rip, cs_base)
        return Place(rip, address, session.names.lookup(address))

    return tuple(
        Count(
            Vector(row.vector),
            row.count,
            found(row.first_rip, row.first_cs_base),
            found(row.last_rip, row.last_cs_base),
        )
        for row in session.recorder.tally.rows()
    )
