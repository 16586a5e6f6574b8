"""Requests that launch the guest, run it and end it."""

from trapline.api import FORWARD, Stop
from trapline.errors import UsageError
from trapline.hypervisor.exception import Decision

from . import bodies, stops
from .arguments import Arguments, Initialize, Launch, Restart, Step
from .debuggee import Debuggee
from .exceptions import filters
from .messages import Event
from .state import Done, State, Work


def initialize(state: State, asked: Initialize) -> Done:
    """Tell what the adapter can do."""
    if asked.path_format != "path":
        raise UsageError("paths as URIs are not understood: use the path format 'path'")
    state.base = int(asked.lines_start_at_1)
    return Done(bodies.capabilities(filters()))


def launch(state: State, asked: Launch) -> Done:
    """Switch the guest on; it waits at its first instruction until the configuration is done."""
    state.launch(asked)
    return Done(events=[Event("initialized")])


def attach(state: State, asked: Arguments) -> Done:
    """Refuse: there is nothing to attach to."""
    raise UsageError("trapline cannot attach to a machine that runs: use the request launch")


def configuration_done(state: State, asked: Arguments) -> Done:
    """Let the guest go, or report its first instruction."""
    guest = state.guest
    if guest.launch.stop_on_entry and not guest.launch.no_debug:
        return Done(events=[stops.stopped("entry", "Paused at the first instruction")])
    return Done(work=_resuming(state))


def restart(state: State, asked: Restart) -> Done:
    """Switch the guest off and on again; breakpoints and filters stay."""
    again = asked.arguments or state.guest.launch
    state.close()
    state.launch(again)
    return configuration_done(state, Arguments())


def terminate(state: State, asked: Arguments) -> Done:
    """Switch the guest off."""
    was = state.debuggee is not None
    state.close()
    return Done(events=[Event("terminated")] if was else [])


def disconnect(state: State, asked: Arguments) -> Done:
    """Switch the guest off, and end the session."""
    state.close()
    state.is_done = True
    return Done()


def resume(state: State, asked: Arguments) -> Done:
    """Let the guest run; one that is over ends."""
    body = bodies.Continued(True)
    return _over(state, body) or Done(body, work=_resuming(state))


def step_over(state: State, asked: Step) -> Done:
    """Step to the next line, or instruction, of the function."""
    return _over(state) or Done(work=_stepping(state, asked, into=False))


def step_into(state: State, asked: Step) -> Done:
    """Step to the next line, or instruction, also of a function that is called."""
    return _over(state) or Done(work=_stepping(state, asked, into=True))


def step_out(state: State, asked: Step) -> Done:
    """Run to the caller. Raises UsageError where it is not known."""
    guest = state.guest
    over = _over(state)
    if over is not None:
        return over
    if len(guest.target.frames()) < 2:
        raise UsageError("the caller is not known: symbols have no call frames of it, and there are no frame pointers")
    return Done(work=state.running(guest.target.step_out))


def _over(state: State, body: object = None) -> Done | None:
    """Return how a guest ends that cannot go on; None: it can."""
    guest = state.guest
    if not guest.target.is_over:
        return None
    events = list(stops.ended(guest))
    state.close()
    return Done(body, events)


def _resuming(state: State) -> Work:
    target, decision = state.guest.target, _decision(state.guest)

    def first() -> Stop:  # once more where it was interrupted too late: the exception is then decided about
        return target.resume(FORWARD if target.stop.exception is None else decision)

    return state.running(first, target.resume)


def _stepping(state: State, asked: Step, *, into: bool) -> Work:
    guest, target = state.guest, state.guest.target
    decision = _decision(guest)
    target.select(asked.thread_id - stops.THREAD if asked.thread_id else None)
    if target.stop.exception is not None:  # the step delivers it, or goes on where it was raised
        return state.running(lambda: target.step(FORWARD if target.stop.exception is None else decision))
    if asked.granularity != "instruction":
        return state.running(lambda: target.step_line(into=into))
    return state.running(target.step if into else target.step_over)


def _decision(guest: Debuggee) -> Decision:
    decision, guest.decision = guest.decision, FORWARD
    return decision
