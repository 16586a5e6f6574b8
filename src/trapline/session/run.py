"""Runs a guest to its end, under rules and to the stops that were asked for, and makes the result."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from trapline.errors import ProcessorError, ProcessorLost, TraplineError, UsageError
from trapline.hypervisor.exception import InterceptedException
from trapline.hypervisor.stop import Stop, StopReason
from trapline.hypervisor.vcpu import Vcpu
from trapline.report.run import Run
from trapline.trace.condition import StopAt
from trapline.trace.rules import Expectation, Rule

from .cpu import Cpu
from .observing import ExceptionExit
from .result import Stopped, result
from .rules import RuleObserver
from .session import Session
from .settings import Outlets, Settings
from .stops import StopObserver, check_forced

_LONGEST: Final = 1_000_000_000
"""Seconds of a timeout; threads cannot wait ten times as long."""

HANDLING: Final = 0.2
"""Seconds in which a guest that works comes back from an exception, also where QEMU emulates and the host is busy."""


def run_guest(
    settings: Settings,
    outlets: Outlets,
    *,
    timeout: float | None,
    rules: Sequence[Rule],
    expectations: Sequence[Expectation],
    keep_going: bool,
    stops: Sequence[StopAt],
    opened: Callable[[Session], object] = lambda session: None,
) -> Run:
    """Switch a machine on, run its guest and return the result; see `trapline.run`.

    `opened` gets the session before the guest runs: another thread can interrupt it.
    """
    if timeout is not None and not 0 < timeout <= _LONGEST:  # NaN is refused too
        raise UsageError(f"--timeout {timeout}: a timeout is more than 0 seconds, and at most {_LONGEST:,}")
    with Session(settings, outlets) as session:
        forced, processor = session.vm.mask, session.processor.capabilities
        check_forced("--stop", {stop.text: stop.vectors for stop in stops}, forced, processor)
        check_forced("--fail-on", {str(rule): rule.vectors for rule in rules}, forced, processor)
        check_forced("--expect", {str(each): each.rule.vectors for each in expectations}, forced, processor)
        see = partial(_see, session, session.cpus())
        ruling = RuleObserver(rules, expectations, see, stops=not keep_going)
        stopping = StopObserver(stops, see)
        for observer in (ruling, stopping):  # in this order: where both would stop the guest, a rule is violated
            if observer.vectors:
                session.vm.observers.add(observer)
        opened(session)
        stop: Stop | None = None
        error: BaseException | None = None
        try:
            stop = session.run(None if timeout is None else session.started + timeout)
        except KeyboardInterrupt as interrupt:
            error = interrupt
        except TraplineError as failure:
            if not (isinstance(failure, ProcessorLost) or session.vm.vcpu.resets):
                raise
            error = failure
        ended = time.monotonic()
        if stop is not None and stopping.hit is not None:
            stop = stop._replace(detail=stopping.hit)
        unreached = () if stopping.hit is not None else tuple(each.text for each in stops)
        stopped = _hold(session) if isinstance(error, KeyboardInterrupt) or _is_timeout(stop) else None
        session.rest()
        return result(
            session, stop, error, ruling.violations(), unreached, ruled=ruling.stopped, stopped=stopped, ended=ended
        )


def _is_timeout(stop: Stop | None) -> bool:
    return stop is not None and stop.reason is StopReason.TIMEOUT


def _hold(session: Session) -> Stopped | None:
    """Stop a guest whose time is up, or that was interrupted, for a last look; None: there is nothing to see.

    It may be handling an exception, as a kernel that pages on demand does all the time. So where it is in a handler it
    goes on for a moment, and only what it has not come back from then is told.
    """
    if not session.vm.vcpu.resets:
        return None
    try:
        if session.halt().reason is not StopReason.INTERRUPTED:
            return None
        unreturned = session.explainer.unreturned()
        if not unreturned:
            return Stopped()
        after = session.run(time.monotonic() + HANDLING)
        if _is_timeout(after):
            after = session.halt()
        return None if after.reason in (StopReason.OFF, StopReason.RESET) else Stopped(known=unreturned)
    except ProcessorLost:
        return None
    except ProcessorError:
        return Stopped(halted=False)
    except (TraplineError, KeyboardInterrupt):
        return None


def _see(session: Session, cpus: Sequence[Cpu], vcpu: Vcpu, reported: InterceptedException) -> ExceptionExit:
    return session.observed(cpus[vcpu.number], reported)
