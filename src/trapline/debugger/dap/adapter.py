"""The adapter: takes requests, and posts responses and events. What runs the guest it returns, for another thread."""

from collections import deque
from collections.abc import Callable
from typing import Final

from trapline.api import Stop
from trapline.errors import TraplineError
from trapline.hypervisor.stop import StopReason
from trapline.typed import shortened

from . import stops
from .arguments import Launch
from .messages import Message, Request, Response, read_arguments, refusal, unknown_arguments
from .requests import REQUESTS
from .state import State, When, Work, internal

_OF_EDITORS: Final = frozenset(
    (
        *("type", "request", "name", "presentation", "preLaunchTask", "postDebugTask", "internalConsoleOptions"),
        *("debugServer", "serverReadyAction", "suppressMultipleSessionWarning"),
    )
)
"""Arguments of a launch that are an editor's own."""


class Adapter:
    """One session of a client."""

    def __init__(self, post: Callable[[Message], None], *, stdio: bool = False) -> None:
        """`post` sends a message, from any thread. `stdio`: this process's standard streams are the client's."""
        self._state = State(post, stdio=stdio)
        self._post = post
        self._running = self._pausing = False
        self._after: Request | None = None
        """Is answered when the guest was interrupted."""
        self._waiting: deque[Request] = deque()
        """Are answered between two instructions."""
        self._called = False
        """Whether the guest was told to stop for them."""
        self._work: Work | None = None
        """What was started last."""

    @property
    def is_done(self) -> bool:
        """Whether the client has left."""
        return self._state.is_done

    @property
    def must_retry(self) -> bool:
        """Whether `retry` is to be called soon.

        Requests wait for a guest that could not be told to stop for them, or breakpoints for symbols.
        """
        return (bool(self._waiting) and not self._called) or (self._running and self._state.awaits_symbols)

    @property
    def is_ending(self) -> bool:
        """Whether a running guest was interrupted in order to end it."""
        return self._after is not None

    def handle(self, request: Request) -> Work | None:
        """Answer a request now or later. Work is what now runs the guest: give what it returns, or raises, to `ran`."""
        row = REQUESTS.get(request.command)
        if request.command == "pause":
            self._pause(request)
        elif row is None:
            self._post(refusal(request, f"the request {shortened(request.command)} is not known"))
        elif not self._running or row.when is When.ALWAYS:
            return self._answer(request)
        elif row.when is When.STOPPED:
            self._post(refusal(request, "the guest runs: pause it first"))
        elif row.when is When.BETWEEN:
            self._waiting.append(request)
            self.retry()
        elif self._after is not None:
            self._post(refusal(request, f"{self._after.command} was asked for already"))
        else:
            self._after = request
            self._interrupt()
        return None

    def retry(self) -> None:
        """Tell the running guest to stop for requests that wait, or since symbols were placed."""
        if self._running and not self._called and (self._waiting or self._state.has_moved):
            vm = self._state.guest.machine.session.vm
            self._called = vm.call_while_stopped(lambda vcpu: self._answer_waiting())

    def ran(self, result: Stop | TraplineError) -> Work | None:
        """Tell the client why the guest stopped, or that its processor failed. Work is as for `handle`."""
        self._running = False
        self._answer_waiting()
        pausing, self._pausing = self._pausing, False
        if self._after is not None:
            request, self._after = self._after, None
            return self._answer(request)
        state = self._state
        if isinstance(result, TraplineError):
            events = list(stops.failed(result))
            state.close()
        elif state.ends_at(result.reason):
            events = list(stops.ended(state.guest))
            state.close()
        elif result.reason is StopReason.INTERRUPTED and not pausing:  # of a pause that came as it stopped anyway
            return None if self._work is None else self._start(self._work)
        else:
            events = [stops.of(result, state.hit)]
        for event in events:
            self._post(event)
        return None

    def leave(self) -> None:
        """Switch the guest off: the client is gone. The guest must not run."""
        self._state.close()

    def interrupt(self) -> None:
        """Stop a running guest; `ran` is then to be called."""
        if self._running:
            self._interrupt()

    def _pause(self, request: Request) -> None:
        if self._running:
            self._pausing = True
            self._interrupt()
        self._post(Response(request.seq, True, request.command))

    def _interrupt(self) -> None:
        self._state.guest.target.interrupt()

    def _answer_waiting(self) -> None:
        self._called = False  # those that come from now on may have to call again
        self._state.find_again()
        while self._waiting:
            self._answer(self._waiting.popleft())

    def _answer(self, request: Request) -> Work | None:
        row = REQUESTS[request.command]
        try:
            done = row.answer(self._state, read_arguments(request, row.arguments))
        except TraplineError as error:
            self._post(refusal(request, str(error.args[0])))
            return None
        except Exception as error:  # noqa: BLE001  # the session goes on
            self._post(refusal(request, str(internal(error))))
            return None
        self._post(Response(request.seq, True, request.command, None, done.body))
        if row.arguments is Launch:
            self._tell_unknown(request)
        for event in done.events:
            self._post(event)
        return None if done.work is None else self._start(done.work)

    def _tell_unknown(self, request: Request) -> None:
        """Tell which arguments of a launch there are not, but for those that are an editor's own."""
        for name in unknown_arguments(request, Launch):
            if name not in _OF_EDITORS and not name.startswith("_"):
                self._post(stops.output(f"trapline: a launch has no argument {name!r}\n", "important"))

    def _start(self, work: Work) -> Work:
        self._running, self._work = True, work
        return work
