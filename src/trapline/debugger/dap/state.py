"""What a session of a client knows: the guest, and what was asked for before it was launched."""

import codecs
import contextlib
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from trapline.api import Stop
from trapline.debugger.target import FINAL
from trapline.errors import TraplineError, UsageError
from trapline.hypervisor.stop import StopReason

from .arguments import FilterOption, Launch
from .bodies import CONSOLE, BreakpointChanged
from .breakpoints import Point, Points
from .debuggee import Debuggee
from .exceptions import DEFAULT, SHUTDOWN, set_filters
from .messages import Event, Message
from .stops import failure, output

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Stop]
"""Runs the guest until it stops."""


def internal(error: Exception) -> TraplineError:
    """Return an error of trapline's own as one that a client is told."""
    log.debug("an error in trapline", exc_info=error)
    return TraplineError(f"an error in trapline: {type(error).__name__}: {error}")


class When(Enum):
    """When a request is answered."""

    ALWAYS = "at once"
    BETWEEN = "between two instructions, if the guest runs"
    STOPPED = "while the guest is stopped, else never"
    INTERRUPTS = "once a running guest was interrupted"


class Done(NamedTuple):
    """What a request leads to."""

    body: Any = None
    """Of the response."""
    events: Sequence[Event] = ()
    """Sent after it."""
    work: Work | None = None
    """Started after them."""


class State:
    """The state of a session."""

    def __init__(self, post: Callable[[Message], None], *, stdio: bool) -> None:
        """`post` sends a message, from any thread. `stdio`: this process's standard streams are the client's."""
        self.post, self._stdio = post, stdio
        self.base = 1
        """The client's number of the first line of a file."""
        self.debuggee: Debuggee | None = None
        self.points = Points()
        self.filters = [FilterOption(name) for name in DEFAULT]
        self.hit: list[Point] = []
        """The breakpoints at which the guest stopped."""
        self._placed: list[tuple[str, int]] = []
        """The files of symbols, and where they were placed, when breakpoints were looked up."""
        self.is_done = False
        """Whether the client has left."""

    @property
    def guest(self) -> Debuggee:
        """The guest. Raises UsageError where there is none."""
        if self.debuggee is None:
            raise UsageError("there is no guest: it was not launched, or it is over")
        return self.debuggee

    def ends_at(self, reason: StopReason) -> bool:
        """Return whether a stop is the end, and not one to look at the guest."""
        if reason not in FINAL or self.guest.launch.no_debug:
            return reason in FINAL
        if reason is StopReason.SHUTDOWN:
            return all(option.filter_id != SHUTDOWN for option in self.filters)
        return reason is not StopReason.HALTED

    def launch(self, launch: Launch) -> None:
        """Switch a guest on, with the breakpoints and filters that are set. Raises UsageError and ProcessorError."""
        if self.debuggee is not None:
            raise UsageError("a guest was launched already")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def console(data: bytes) -> None:
            if text := decoder.decode(data):
                self.post(output(text, CONSOLE))

        self.debuggee = guest = Debuggee(launch, console, stdio=self._stdio)
        if not launch.no_debug:
            guest.target.passes = lambda: not self._stops(self.points.at(guest.target.cpu.address))
            set_filters(guest.target, self.filters)
            self._placed = self._files()
            self._tell(self.points.launched(guest))

    @property
    def awaits_symbols(self) -> bool:
        """Whether breakpoints may have a place once symbols have one, as those of a Linux kernel that is booting."""
        guest = self.debuggee
        return guest is not None and self.points.are_missing and bool(guest.machine.session.names.unplaced)

    @property
    def has_moved(self) -> bool:
        """Whether symbols were placed since breakpoints were looked up."""
        return self.debuggee is not None and not self.debuggee.launch.no_debug and self._files() != self._placed

    def find_again(self) -> None:
        """Look up breakpoints again, if symbols were placed. The guest is stopped."""
        if self.has_moved:
            self._placed = self._files()
            with contextlib.suppress(TraplineError):  # the guest is over: nothing is set any more
                self._tell(self.points.find_again(self.guest))

    def _files(self) -> list[tuple[str, int]]:
        return [(file.name, file.slide) for file in self.guest.machine.session.names.files]

    def _tell(self, points: list[Point]) -> None:
        for point in points:
            body = point.body()
            if body.line is not None:
                body.line += self.base - 1
            self.post(Event("breakpoint", BreakpointChanged("changed", body)))

    def close(self) -> None:
        """Switch the guest off, if there is one. What fails, as where its trace does not fit on the disk, is told."""
        guest, self.debuggee = self.debuggee, None
        if guest is not None:
            try:
                guest.machine.close()
            except TraplineError as error:
                self.post(failure(error))

    def running(self, first: Work, again: Work | None = None) -> Work:
        """Return work that starts by `first`.

        Past data breakpoints whose conditions do not hold it goes on by `again`.
        """
        guest = self.guest
        guest.containers.forget()

        def work() -> Stop:
            stop = first()
            while stop.watchpoint is not None and not self._stops(self.points.on(stop.watchpoint)):
                if again is None:
                    return stop._replace(reason=StopReason.STEP, watchpoint=None)
                stop = again()
            return stop

        return work

    def _stops(self, points: list[Point]) -> bool:
        """Return whether any of the breakpoints to which the guest came stops it, and remember which."""
        guest = self.guest
        self.hit = [point for point in points if point.stops(guest, lambda text: self.post(output(text)))]
        return bool(self.hit)
