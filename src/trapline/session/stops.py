"""The exceptions at which a run is to end."""

from collections.abc import Callable, Mapping, Sequence

from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.hypervisor.exception import Decision, InterceptedException, Verdict
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.processor import Capabilities
from trapline.trace import rules
from trapline.trace.condition import StopAt

from .observing import ExceptionExit


class StopObserver:
    """An observer (`hypervisor.observers.Observer`) that stops the guest at the first exception that is asked for."""

    def __init__(self, stops: Sequence[StopAt], see: Callable[[Vcpu, InterceptedException], ExceptionExit]) -> None:
        self._stops, self._see = tuple(stops), see
        self.vectors = 0
        for stop in self._stops:
            self.vectors |= stop.vectors
        self.hit: str | None = None
        """What stopped the guest, and the exception, as text; None: nothing did."""

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Decision:
        """Stop the guest if one of the stops is about the exception."""
        seen = self._see(vcpu, exit)
        for stop in self._stops:
            if stop.matches(seen):
                self.hit = f"stop {stop.text}: {seen}"
                return Verdict.STOP
        return Verdict.FORWARD


def check_forced(option: str, wanted: Mapping[str, int], forced: int, processor: Capabilities) -> None:
    """Raise UsageError for what names exceptions which are not forced: they would never be noticed.

    `wanted` has what is given with the option, and a bit for each vector that it names.
    """
    for text, vectors in wanted.items():
        if rules.unforced(vectors, forced) >> Vector.TS & 1 and forced and not processor.ts_error_code:
            raise UsageError(f"{option} {text}: {processor.name} gives no error code for #TS, so it is not forced")
        rules.check_forced(f"{option} {text}", vectors, forced)
