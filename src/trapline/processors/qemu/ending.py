"""How QEMU ended: by the guest, by somebody else, or by a failure of its own."""

import re
import signal
from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome

_LAST_WORDS: Final = ("fatal:", "assert")
"""QEMU's abort has one of these in a line, and may have many lines of registers after it."""
_BY_SIGNAL: Final = "host-signal"
_PANIC: Final = "guest-panic"
_RESET: Final = "guest-reset"
"""Reasons of QEMU's SHUTDOWN event, as its QMP reference has them: `ShutdownCause`."""
_NOT_BY_GUEST: Final = {
    "host-error": "QEMU ended the guest after an error of its own",
    "host-qmp-quit": "QEMU was told to quit, by its monitor",
    "host-ui": "QEMU's window was closed",
}
"""Reasons of that event other than the guest's own, and the sentence for each."""
_PANICKED: Final = "the guest reported that it panicked (pvpanic)"
_TERMINATING: Final = re.compile(r"terminating on signal (\d+)(?: from pid (\d+))?")


class Ended(NamedTuple):
    """What the end of QEMU means."""

    outcome: Outcome
    """OFF, or RESET: QEMU ended in place of a reset."""
    exit_status: int | None
    """What the guest ended QEMU with; None: a plain power off."""
    hints: tuple[str, ...] = ()
    """Sentences about it."""


def ended(returncode: int, errors: Callable[[], str], *, by_guest: bool, reason: str | None) -> Ended:
    """Return what the end of QEMU means; raises ProcessorLost if it was not the guest that ended it.

    `returncode` is the process's, `errors` returns what it wrote on stderr. `by_guest`: the guest used isa-debug-exit.
    `reason` is that of QEMU's SHUTDOWN event, None where there was none.
    """
    if returncode < 0:
        killed = f"QEMU was killed by {signal.Signals(-returncode).name}"
        lines = [line for line in errors().splitlines() if any(words in line.lower() for words in _LAST_WORDS)]
        raise ProcessorLost(": ".join([killed, *lines[:1]]))
    if reason == _BY_SIGNAL:
        raise ProcessorLost(_ended_by_signal(errors()))
    if reason in _NOT_BY_GUEST:
        raise ProcessorLost(_NOT_BY_GUEST[reason])
    if returncode == 1 and reason == _PANIC:  # -action panic=exit-failure
        raise ProcessorLost(f"QEMU failed: {_PANICKED}")
    if returncode == 1 and not by_guest:
        raise ProcessorLost(f"QEMU failed: {errors() or 'it printed nothing'}")
    outcome = Outcome.RESET if reason == _RESET else Outcome.OFF
    return Ended(outcome, returncode or None, (_PANICKED,) if reason == _PANIC else ())


def _ended_by_signal(errors: str) -> str:
    """Return the sentence about a signal, which makes QEMU end itself, with exit status 0."""
    told = _TERMINATING.search(errors)
    if told is None:
        return "QEMU was ended by a signal"
    sender = "" if told[2] is None else f", which process {told[2]} sent"
    return f"QEMU was ended by {signal.Signals(int(told[1])).name}{sender}"
