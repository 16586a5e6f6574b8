"""Runs a guest to its end under rules, and makes the result."""

from collections.abc import Sequence

from trapline.errors import ProcessorLost, TraplineError, UsageError
from trapline.hypervisor.stop import Stop
from trapline.report.run import Run
from trapline.trace.rules import Expectation, Rule

from .result import result
from .rules import RuleObserver
from .session import Session
from .settings import Outlets, Settings


def run_guest(
    settings: Settings,
    outlets: Outlets,
    *,
    timeout: float | None,
    rules: Sequence[Rule],
    expectations: Sequence[Expectation],
    keep_going: bool,
) -> Run:
    """Switch a machine on, run its guest and return the result; see `trapline.run`."""
    if timeout is not None and not timeout > 0:  # NaN too
        raise UsageError(f"--timeout {timeout}: a timeout is more than 0 seconds")
    with Session(settings, outlets) as session:
        cpu = session.cpu()
        observer = RuleObserver(
            rules, expectations, lambda vcpu, reported: session.observed(cpu, reported), stops=not keep_going
        )
        if observer.vectors:
            session.vm.observers.add(observer)
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
        return result(session, stop, error, observer.violations())
