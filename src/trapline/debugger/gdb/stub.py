"""The stub: one packet in, replies out, over a stopped target. It knows no sockets."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from trapline.api import Stop
from trapline.debugger.target import Target
from trapline.errors import FaultError, TraplineError, UsageError
from trapline.hypervisor.stop import StopReason
from trapline.typed import printable

from . import inspecting, resuming, signals, target_xml
from .packets import LARGEST, escape
from .points import KINDS
from .reading import write_register
from .resuming import Action
from .state import BAD, OK, UNSUPPORTED, State, numbers
from .stops import EXITED, told

_FAULT: Final = b"E14"
"""No memory is there."""
_TEXT: Final = LARGEST // 2 - 8
"""Bytes of text in a packet, which has two digits for each."""
_FEATURES: Final = (
    b"PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:siginfo:read+;QPassSignals+;vContSupported+;swbreak+;"
    b"hwbreak+;binary-upload+" % LARGEST
)


class End(Enum):
    """Why a session is over."""

    DETACHED = "detached"
    """The guest is to go on without a debugger."""
    KILLED = "killed"
    """The guest is to end."""
    EXITED = "exited"
    """The guest has ended."""


class Answer(NamedTuple):
    """What is to be done about a packet."""

    replies: tuple[bytes, ...] = ()
    """Payloads."""
    work: Callable[[], Stop] | None = None
    """What is to be run in a thread of its own: `Stub.stopped` makes the reply of what it returns."""
    end: End | None = None


class Stub:
    """One session of a client with a target."""

    def __init__(self, target: Target, *, attached: bool, exit_code: Callable[[], int]) -> None:
        """`attached`: a client that leaves lets the guest go on. `exit_code` is called when the guest has ended."""
        self._target, self._attached, self._exit_code = target, attached, exit_code
        self._state = State.of(target)
        self._details = False
        """The client knows `swbreak` and `hwbreak`."""
        self._halted_at: int | None = None
        self._told_bits = target.cpu.bits
        self._reply = b"S05"
        """What `?` answers: why the guest is stopped."""
        self.no_ack = False
        """The client wants no acknowledgements."""

    def handle(self, payload: bytes) -> Answer:
        """Answer a packet. The guest must be stopped."""
        text = payload.decode("latin-1")
        try:
            for prefix, method in _PACKETS.items():
                if text.startswith(prefix):
                    answer = method(self, text[len(prefix) :])
                    return Answer((answer,)) if isinstance(answer, bytes) else answer
            for prefix, query in inspecting.QUERIES.items():
                if text.startswith(prefix):
                    return Answer((query(self._state, text[len(prefix) :]),))
        except FaultError:
            return Answer((_FAULT,))
        except TraplineError as error:
            return Answer((_refusal(error),))
        except (ValueError, OverflowError):
            return Answer((BAD,))
        return Answer((UNSUPPORTED,))

    def stopped(self, stop: Stop) -> Answer:
        """Return the stop reply, after which `handle` may be called again."""
        self._state.monitor.decision = None
        if stop.reason in EXITED:
            return self._exited()
        cpu = self._target.cpu
        self._halted_at = cpu.address if stop.reason is StopReason.HALTED else None
        self._reply, text = told(stop, self._state.points, details=self._details)
        lines = [] if text is None else [text]
        if self._attached and self._state.is_stale and self._told_bits != cpu.bits:
            lines.append(f"the guest executes {cpu.bits}-bit code: `unset tdesc filename` has gdb read it as such")
        self._told_bits = cpu.bits
        return Answer((*(said(f"trapline: {line}\n") for line in lines), self._reply))

    def failed(self, error: TraplineError) -> Answer:
        """Return the reply after the guest could not be run."""
        line = said(f"trapline: {printable(str(error.args[0]))}\n")
        if isinstance(error, UsageError):
            return Answer((line, self._reply))
        return Answer((line, *self._exited().replies), end=End.EXITED)

    def close(self) -> None:
        """Remove what the client has set."""
        for caught in self._target.catches:
            self._target.release(caught)
        self._target.passed = 0
        if not self._target.is_over:
            self._state.points.clear()

    def _exited(self) -> Answer:
        return Answer((b"W%02x" % (self._exit_code() & 0xFF),), end=End.EXITED)

    def _supported(self, rest: str) -> bytes:
        self._details = "swbreak+" in rest
        return _FEATURES

    def _no_acks(self, rest: str) -> bytes:
        self.no_ack = True
        return OK

    def _why(self, rest: str) -> bytes:
        return self._reply

    def _is_attached(self, rest: str) -> bytes:
        return b"1" if self._attached else b"0"

    def _detach(self, rest: str) -> Answer:
        self.close()
        return Answer((OK,), end=End.DETACHED)

    def _kill(self, rest: str) -> Answer:
        return Answer(end=End.KILLED)

    def _kill_process(self, rest: str) -> Answer:
        return Answer((OK,), end=End.KILLED)

    def _actions(self, rest: str) -> bytes:
        return resuming.ACTIONS

    def _unsupported(self, rest: str) -> bytes:
        return UNSUPPORTED

    def _pass_signals(self, rest: str) -> bytes:
        self._target.passed = signals.vectors_of(int(number, 16) for number in rest.split(";") if number)
        return OK

    def _command(self, rest: str) -> Answer:
        text = bytes.fromhex(rest).decode(errors="surrogateescape")
        try:
            printed = self._state.monitor.execute(text)
        except TraplineError as error:  # gdb 13 has no place for a reason
            printed = f"trapline: {printable(str(error.args[0]))}\n"
        data = printed.encode(errors="backslashreplace")
        parts = [data[at : at + _TEXT] for at in range(0, len(data), _TEXT)]
        return Answer((*(b"O" + part.hex().encode() for part in parts), OK))

    def _set_point(self, rest: str) -> bytes:
        return self._change_point(rest, self._state.points.add)

    def _remove_point(self, rest: str) -> bytes:
        return self._change_point(rest, self._state.points.remove)

    def _change_point(self, rest: str, change: Callable[[int, int, int, bool], None]) -> bytes:
        kind, address, size = numbers(rest.partition(";")[0], 3)
        if kind not in KINDS:
            return UNSUPPORTED
        change(kind, address, size, self._state.layout.bits != 64)
        return OK

    def _resume(self, rest: str) -> Answer:
        target = self._target
        return self._go(resuming.parse(rest, len(target.machine.cpus), target.stopped_cpu.number))

    def _continue(self, rest: str) -> Answer:
        return self._go_from(Action(resuming.CONTINUE), rest)

    def _step(self, rest: str) -> Answer:
        return self._go_from(Action(resuming.STEP), rest)

    def _continue_with(self, rest: str) -> Answer:
        signal, _, address = rest.partition(";")
        return self._go_from(Action(resuming.CONTINUE, int(signal, 16)), address)

    def _step_with(self, rest: str) -> Answer:
        signal, _, address = rest.partition(";")
        return self._go_from(Action(resuming.STEP, int(signal, 16)), address)

    def _go_from(self, action: Action, address: str) -> Answer:
        if address:
            pc = next(row for row in self._state.layout.rows if row.source == target_xml.PC)
            write_register(self._target, pc, numbers(address, 1)[0].to_bytes(8, "little")[: pc.bits // 8])
        return self._go(action)

    def _go(self, action: Action) -> Answer:
        target = self._target
        if target.stop.reason is StopReason.SHUTDOWN or self._halted_at == target.stopped_cpu.address:
            return self._exited()
        decision = self._state.monitor.decision
        if decision is None:
            decision = resuming.decide(target, action.signal)
        return Answer(work=lambda: resuming.execute(target, action, decision))


def said(text: str) -> bytes:
    """Return text that gdb prints while the guest runs."""
    return b"O" + text.encode(errors="backslashreplace")[:_TEXT].hex().encode()


def refusal(text: str) -> bytes:
    """Return the answer that a packet gets which cannot be done, with a reason."""
    return b"E." + escape(" ".join(text.split()).encode(errors="backslashreplace")[:_TEXT])


def _refusal(error: TraplineError) -> bytes:
    return refusal(printable(str(error.args[0])))


_Method: TypeAlias = Callable[[Stub, str], bytes | Answer]
# ruff: noqa: SLF001  # the table is a part of the class
_PACKETS: Final[Mapping[str, _Method]] = {
    "qSupported": Stub._supported,
    "QStartNoAckMode": Stub._no_acks,
    "?": Stub._why,
    "qAttached": Stub._is_attached,
    "QPassSignals:": Stub._pass_signals,
    "qRcmd,": Stub._command,
    "vCont?": Stub._actions,
    "vCont;": Stub._resume,
    "vKill": Stub._kill_process,
    "v": Stub._unsupported,
    "k": Stub._kill,
    "D": Stub._detach,
    "Z": Stub._set_point,
    "z": Stub._remove_point,
    "c": Stub._continue,
    "s": Stub._step,
    "C": Stub._continue_with,
    "S": Stub._step_with,
}
