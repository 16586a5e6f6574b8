"""What a user types in the debug console: verdicts on the exception, the explanation, and expressions."""

from collections.abc import Callable
from typing import Final

from trapline.api import DISCARD, FORWARD, inject
from trapline.arch.bits import M64
from trapline.arch.vectors import Vector, mnemonic
from trapline.errors import UsageError
from trapline.typed import read_integer, shortened

from . import bodies
from .debuggee import Debuggee
from .expressions import Value

_HELP: Final = """\
discard        the guest never sees the exception, and goes on at RIP
discard skip   the same, after the instruction
forward        the exception is delivered (as without a word)
inject VECTOR [ERROR CODE [ADDRESS]]   another exception is delivered in its place: inject gp 0x10
why            explains the exception, or the shutdown
last [N]       the last exceptions
type TEXT      sends text to the guest's console; \\n is a new line
NAME = VALUE   sets a register, or memory: rax = 1, dword [rsp + 8] = 0
rax, kmain + 4, dword [rsp + 8]   what it is"""
_LAST: Final = 8
_EXAMPLE: Final = "inject VECTOR [ERROR CODE [ADDRESS]], such as inject gp 0x10"


def evaluate(text: str, debuggee: Debuggee) -> bodies.Evaluated:
    """Do what was typed, or return the value of an expression. Raises UsageError and FaultError."""
    verb, _, rest = text.strip().partition(" ")
    command = _COMMANDS.get(verb)
    if command is not None:
        return bodies.Evaluated(command(debuggee, rest), 0)
    target, equals, value = text.partition("=")
    if equals and not value.startswith("=") and target.strip() and target[-1] not in "<>!=":
        number = debuggee.evaluate(value, wide=True).number
        debuggee.store(target.strip(), number)
        text = target
    return look(text, debuggee)


def look(text: str, debuggee: Debuggee) -> bodies.Evaluated:
    """Return the value of an expression. Raises UsageError and FaultError."""
    return _shown(debuggee.evaluate(text, wide=True), debuggee)


def _shown(value: Value, debuggee: Debuggee) -> bodies.Evaluated:
    pointer = (value.number if value.address is None else value.address) & M64
    if value.is_symbol or value.register in ("rip", "eip"):
        text = debuggee.named(value.number)
    elif value.address is not None:
        text = f"{value.number:#0{2 * value.size + 2}x}"
    else:
        text = f"{value.number:#x} ({value.number})" if value.number > 9 else str(value.number)
    return bodies.Evaluated(text, 0, memory_reference=f"{pointer:#x}")


def _discard(debuggee: Debuggee, rest: str) -> str:
    what, target = _pending(debuggee), debuggee.target
    if rest.strip() not in ("", "skip"):
        raise UsageError("discard, or discard skip")
    if rest:
        target.skip()
    target.stop.deliver(DISCARD)
    debuggee.decision = DISCARD
    return f"{what} is discarded when the guest goes on, at {debuggee.named(target.stopped_cpu.address)}"


def _forward(debuggee: Debuggee, rest: str) -> str:
    what = _pending(debuggee)
    if rest:
        raise UsageError("forward has no arguments")
    debuggee.decision = FORWARD
    return f"{what} is delivered when the guest goes on"


def _inject(debuggee: Debuggee, rest: str) -> str:
    what, words = _pending(debuggee), rest.split()
    if not 1 <= len(words) <= 3:
        raise UsageError(_EXAMPLE)
    vector = Vector.__members__.get(words[0].removeprefix("#").upper(), read_integer(words[0]))
    if vector is None:
        raise UsageError(f"{shortened(words[0])}: there is no such vector: {_EXAMPLE}")
    decision = inject(vector, *(debuggee.evaluate(word).number for word in words[1:]))
    debuggee.target.stop.deliver(decision)
    debuggee.decision = decision
    return f"{decision.event} is delivered when the guest goes on, in place of {what}"


def _why(debuggee: Debuggee, rest: str) -> str:
    explanation = debuggee.target.explain()
    if explanation is None:
        raise UsageError(f"the guest is not stopped at an exception: {debuggee.target.stop.reason.value}")
    return str(explanation)


def _last(debuggee: Debuggee, rest: str) -> str:
    count = read_integer(rest) if rest else _LAST
    if count is None or count < 1:
        raise UsageError("last [N]: how many exceptions")
    return "\n".join(map(str, debuggee.machine.exceptions[-count:])) or "there were no exceptions"


def _type(debuggee: Debuggee, rest: str) -> str:
    text = rest.encode().decode("unicode_escape", errors="replace")
    debuggee.machine.console.write(text.encode("latin-1", errors="replace"))
    return f"{len(text)} characters are sent when the guest goes on"


def _pending(debuggee: Debuggee) -> str:
    """Return the exception at which the guest is stopped, for a message. Raises UsageError where there is none."""
    exception = debuggee.target.stop.exception
    if exception is None:
        raise UsageError("the guest is not stopped at an exception: there is nothing to decide")
    return mnemonic(exception.vector)


_COMMANDS: Final[dict[str, Callable[[Debuggee, str], str]]] = {
    "discard": _discard,
    "forward": _forward,
    "inject": _inject,
    "why": _why,
    "last": _last,
    "type": _type,
    "help": lambda debuggee, rest: _HELP,
}
VERBS: Final = tuple(_COMMANDS)
