"""A guest that was launched: what requests are about."""

from collections.abc import Callable
from typing import Final

from trapline.api import FORWARD
from trapline.arch.bits import M64
from trapline.debugger import registers
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.hypervisor.exception import Decision

from .arguments import Launch
from .expressions import Value, evaluate
from .launch import open_machine, source_roots
from .sources import Sources
from .variables import Containers

_WORDS: Final = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip", "flags")
_PARTS: Final = {
    **{f"e{name}": (f"r{name}", 32) for name in _WORDS},
    **{name: (f"r{name}", 16) for name in _WORDS},
    **{f"{name}l": (f"r{name}x", 8) for name in "abcd"},
}
"""Lower parts of registers: the register, and how many bits."""
REGISTERS: Final = (*(register.name for register in registers.REGISTERS), *_PARTS)
"""The names of registers, and of parts of them."""


class Debuggee:
    """A guest, stopped at its first instruction at first. It is a `Place` of expressions."""

    def __init__(self, launch: Launch, console: Callable[[bytes], object], *, stdio: bool) -> None:
        """Switch it on. Raises UsageError and ProcessorError; the rest is as for `open_machine`."""
        self.launch = launch
        self.machine = machine = open_machine(launch, console, stdio=stdio)
        try:
            self.target = Target(machine)
        except BaseException:
            machine.close()
            raise
        self.decision: Decision = FORWARD
        """What happens with the exception at which it is stopped, when it goes on."""
        self.containers = Containers()
        self.sources = Sources(source_roots(launch))

    @property
    def width(self) -> int:
        """The size of its code in bytes."""
        return self.target.cpu.bits // 8

    def register(self, name: str) -> int | None:
        """Return the value of a register; None: it is not one."""
        whole, bits = _PARTS.get(name.lower(), (name, None))
        try:
            register = registers.find(whole)
            value = registers.read(self.target, register)
        except UsageError:
            return None
        return None if value is None else value & (1 << (bits or register.bits)) - 1

    def symbol(self, name: str) -> int | None:
        """Return the address of a symbol, or a place in it as `kmain+0x10`; None: unknown."""
        try:
            return self.machine.resolve(name)
        except UsageError:
            return None

    def read(self, address: int, size: int) -> bytes:
        """Return memory at a linear address; raises FaultError."""
        return self.target.cpu.read(address, size)

    def evaluate(self, text: str, *, wide: bool = False) -> Value:
        """Return the value of an expression, of which 64 bits count, or all. Raises UsageError and FaultError."""
        value = evaluate(text, self)
        return value if wide else value._replace(number=value.number & M64)

    def store(self, text: str, number: int) -> None:
        """Set what an expression names: a register, or memory. Raises UsageError and FaultError."""
        value = self.evaluate(text, wide=True)
        if value.register is not None:
            self._set_register(value.register, number)
        elif value.address is not None:
            self.target.cpu.write(value.address, (number & (1 << 8 * value.size) - 1).to_bytes(value.size, "little"))
        else:
            raise UsageError(f"{text}: only a register or memory, as dword [rsp + 8], can be set")

    def _set_register(self, name: str, number: int) -> None:
        whole, bits = _PARTS.get(name, (name, 64))
        register = registers.find(whole)
        if name in _PARTS:
            if number >> bits:
                raise UsageError(f"{name} has {bits} bits: {number:#x} does not fit")
            kept = registers.read(self.target, register) or 0
            number |= kept >> bits << bits
        registers.write(self.target, register, number)

    def named(self, address: int) -> str:
        """Return an address with its symbol."""
        return self.target.named(address)
