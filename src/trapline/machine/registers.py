"""The registers of a CPU by name."""

from collections.abc import Callable
from typing import Final, TypeAlias, overload

from trapline.arch.registers import EFER, Gprs
from trapline.arch.vmcb import SaveArea, Segment

Check: TypeAlias = Callable[[bool], None]
"""`check(writes)` raises an error while the guest cannot be accessed."""

_BITS: Final = 1 << 64


def unchecked(writes: bool) -> None:
    """Permit an access: a `Check` for a guest that is known to be stopped."""


class _Integer:
    """A register of up to 64 bits. `hidden` are bits of the hypervisor: they read as 0, and writes keep them."""

    def __init__(self, area: str, hidden: int = 0) -> None:
        self._area, self._hidden = area, hidden

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, registers: None, owner: type) -> "_Integer": ...
    @overload
    def __get__(self, registers: "Registers", owner: type) -> int: ...
    def __get__(self, registers: "Registers | None", owner: type) -> "int | _Integer":
        if registers is None:
            return self
        registers.check(False)
        value: int = getattr(getattr(registers, self._area), self._name)
        return value & ~self._hidden

    def __set__(self, registers: "Registers", value: int) -> None:
        registers.check(True)
        if not 0 <= value < _BITS:
            raise ValueError(f"{self._name} has 64 bits: {value:#x} does not fit")
        area = getattr(registers, self._area)
        setattr(area, self._name, value & ~self._hidden | getattr(area, self._name) & self._hidden)


class _Structure:
    """A segment or table register with its hidden part."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, registers: None, owner: type) -> "_Structure": ...
    @overload
    def __get__(self, registers: "Registers", owner: type) -> Segment: ...
    def __get__(self, registers: "Registers | None", owner: type) -> "Segment | _Structure":
        if registers is None:
            return self
        registers.check(False)
        segment: Segment = getattr(registers.save, self._name)
        return segment


GENERAL: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr")
TABLES: Final = ("gdtr", "idtr")
REPORTED: Final = (*GENERAL, "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "efer", "dr6", "dr7")


class Registers:
    """The registers of a stopped CPU. Integers can be read and written, 64 bits each.

    Segment and table registers are structures with `selector`, `attributes`, `limit` and `base` (APM vol. 2, 15.5.1):
    `registers.fs.base`. EFER.SVME, which is the hypervisor's, is hidden.
    """

    __slots__ = ("check", "gprs", "save")

    rax, rsp = _Integer("save"), _Integer("save")
    rbx, rcx, rdx = _Integer("gprs"), _Integer("gprs"), _Integer("gprs")
    rsi, rdi, rbp = _Integer("gprs"), _Integer("gprs"), _Integer("gprs")
    r8, r9, r10, r11 = _Integer("gprs"), _Integer("gprs"), _Integer("gprs"), _Integer("gprs")
    r12, r13, r14, r15 = _Integer("gprs"), _Integer("gprs"), _Integer("gprs"), _Integer("gprs")
    rip, rflags = _Integer("save"), _Integer("save")
    cr0, cr2, cr3, cr4 = _Integer("save"), _Integer("save"), _Integer("save"), _Integer("save")
    efer = _Integer("save", hidden=EFER.SVME)
    dr6, dr7 = _Integer("save"), _Integer("save")
    star, lstar, cstar, sfmask = _Integer("save"), _Integer("save"), _Integer("save"), _Integer("save")
    kernel_gs_base = _Integer("save")
    sysenter_cs, sysenter_esp, sysenter_eip = _Integer("save"), _Integer("save"), _Integer("save")
    cs, ss, ds, es, fs, gs = _Structure(), _Structure(), _Structure(), _Structure(), _Structure(), _Structure()
    ldtr, tr, gdtr, idtr = _Structure(), _Structure(), _Structure(), _Structure()

    def __init__(self, save: SaveArea, gprs: Gprs, check: Check) -> None:
        """`check(writes)` raises an error while registers cannot be accessed."""
        self.save, self.gprs, self.check = save, gprs, check

    @property
    def cpl(self) -> int:
        """The current privilege level, 0 to 3."""
        self.check(False)
        return self.save.cpl

    def copy(self) -> "Registers":
        """Return copies of the registers, which cannot be written."""
        self.check(False)
        return Registers(SaveArea.from_buffer_copy(self.save), Gprs.from_buffer_copy(self.gprs), _read_only)

    def to_json(self) -> dict[str, str]:
        """Return the registers of a report as hexadecimal text."""
        found: dict[str, int] = {name: getattr(self, name) for name in REPORTED}
        found["cpl"] = self.cpl
        for name in SEGMENTS:
            segment: Segment = getattr(self, name)
            found[name], found[f"{name}_base"] = segment.selector, segment.base
        for name in TABLES:
            table: Segment = getattr(self, name)
            found[f"{name}_base"], found[f"{name}_limit"] = table.base, table.limit
        return {name: f"{value:#x}" for name, value in found.items()}


def _read_only(writes: bool) -> None:
    if writes:
        raise AttributeError("these registers are copies: they cannot be written")
