"""The registers of a stopped CPU by name, in groups, as debuggers show them."""

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from trapline.arch import fxsave
from trapline.arch.events import encode
from trapline.errors import UsageError
from trapline.machine.registers import GENERAL, SEGMENTS, TABLES

from .target import Target


class Group(Enum):
    """What registers are about; the value is a title."""

    GENERAL = "General"
    SEGMENTS = "Segments"
    CONTROL = "Control"
    MSRS = "Model-specific"
    X87 = "x87"
    MMX = "MMX"
    SSE = "SSE"
    EXCEPTION = "Exception"
    """Of the exception at which the guest is stopped. They cannot be written."""


class Register(NamedTuple):
    """A register, or a part of one."""

    name: str
    """As `rax`, `cs`, `cs_base` or `error_code`."""
    group: Group
    bits: int
    """The most that a value has."""
    path: str
    """Where `machine.registers.Registers` has it, as `cs.base`; of x87, MMX and SSE the name in `arch.fxsave`, of the
    group EXCEPTION an attribute of the stop."""
    writable: bool = True

    @property
    def limit(self) -> int:
        """The first value that does not fit."""
        return 1 << self.bits


def _segment(name: str) -> Iterator[Register]:
    for suffix, field, bits in (
        ("", "selector", 16),
        ("_base", "base", 64),
        ("_limit", "limit", 32),
        ("_attributes", "attributes", 16),
    ):
        yield Register(name + suffix, Group.SEGMENTS, bits, f"{name}.{field}")


def _table(name: str) -> Iterator[Register]:
    yield Register(f"{name}_base", Group.SEGMENTS, 64, f"{name}.base")
    yield Register(f"{name}_limit", Group.SEGMENTS, 16, f"{name}.limit")


_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "efer", "dr6", "dr7")
_MSRS: Final = (*("star", "lstar", "cstar", "sfmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip"),)
_STACK: Final = tuple(f"st{number}" for number in range(fxsave.X87_REGISTERS))
_X87: Final = (*_STACK, "fcw", "fsw", fxsave.TAG_WORD, "fop", "fip", "fcs", "fdp", "fds")
_SSE: Final = (*(f"xmm{number}" for number in range(fxsave.XMM_REGISTERS)), "mxcsr")
_FPU: Final = frozenset({Group.X87, Group.MMX, Group.SSE})
_EXCEPTION: Final = {"vector": 8, "error_code": 32, "fault_address": 64, "vectoring": 64, "seq": 64}

REGISTERS: Final[tuple[Register, ...]] = (
    *(Register(name, Group.GENERAL, 64, name) for name in (*GENERAL, "rip", "rflags")),
    *(register for name in SEGMENTS for register in _segment(name)),
    *(register for name in TABLES for register in _table(name)),
    *(Register(name, Group.CONTROL, 64, name) for name in _CONTROL),
    Register("cpl", Group.CONTROL, 2, "cpl", writable=False),
    *(Register(name, Group.MSRS, 64, name) for name in _MSRS),
    *(Register(name, Group.X87, fxsave.bits(name), name) for name in _X87),
    *(Register(name, Group.MMX, fxsave.bits(name), name) for name in fxsave.MMX),
    *(Register(name, Group.SSE, fxsave.bits(name), name) for name in _SSE),
    *(Register(name, Group.EXCEPTION, bits, name, writable=False) for name, bits in _EXCEPTION.items()),
)
"""All of them, group by group."""

_BY_NAME: Final = {register.name: register for register in REGISTERS}


def group_of(group: Group) -> tuple[Register, ...]:
    """Return the registers of a group, in order."""
    return tuple(register for register in REGISTERS if register.group is group)


def find(name: str) -> Register:
    """Return the register of a name, in any case; raises UsageError where there is none."""
    register = _BY_NAME.get(name.lower())
    if register is None:
        raise UsageError(f"no register is called {name!r}")
    return register


def read(target: Target, register: Register) -> int | None:
    """Return the value; None: the CPU is not stopped at an exception, or that one has no such value.

    None also for x87, MMX and SSE registers where the processor does not give them.

    `vectoring` is as in EXITINTINFO (APM vol. 2, 15.20).
    """
    if register.group is Group.EXCEPTION:
        return _of_exception(target, register.name)
    if register.group in _FPU:
        image = target.fpu
        return fxsave.read(image, register.path) if image else None
    value: object = target.cpu.registers
    for name in register.path.split("."):
        value = getattr(value, name)
    assert isinstance(value, int)
    return value


def write(target: Target, register: Register, value: int) -> None:
    """Set a register. A selector that is written changes no hidden part: the guest itself loads that.

    Raises UsageError for one that cannot be written, and for a value that does not fit.
    """
    if not register.writable:
        raise UsageError(f"{register.name} cannot be written")
    if not 0 <= value < register.limit:
        raise UsageError(f"{register.name} has {register.bits} bits: {value:#x} does not fit")
    if register.group in _FPU:
        image = target.fpu
        if not image:
            raise UsageError(f"{register.name} is not available")
        target.fpu = fxsave.write(image, register.path, value)
        return
    registers = target.cpu.registers
    registers.check(True)
    name, _, field = register.path.partition(".")
    if field:
        setattr(getattr(registers, name), field, value)
    else:
        setattr(registers, name, value)


def _of_exception(target: Target, name: str) -> int | None:
    exception = target.exception
    if exception is None:
        return None
    if name == "vectoring":
        return None if exception.vectoring is None else encode(exception.vectoring)
    return {
        "vector": int(exception.vector),
        "error_code": exception.error_code,
        "fault_address": exception.address,
        "seq": exception.seq,
    }[name]
