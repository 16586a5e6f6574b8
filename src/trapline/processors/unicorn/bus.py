"""The bare machine as Unicorn reaches it: ports with their permissions, and memory that is no RAM."""

from typing import Final

from trapline.arch.paging import NotMapped, walk
from trapline.arch.registers import CR0, RFLAGS
from trapline.processors.bare.machine import BareMachine

from .context import HF_CPL
from .engine import Engine
from .memory import Ram

_QUIET: Final = frozenset((*range(0x3F8, 0x400), 0xE9))
"""Consoles: nothing that is written there needs a look at the rest of the machine, but for an interrupt."""

_TSS_TYPES: Final = (0x9, 0xB)
"""A 32-bit or 64-bit TSS, available or busy: only these have an I/O permission map."""
_MAP_BASE: Final = 0x66
"""Where a TSS says where its map begins (APM 12.2.4, 12.2.5)."""


class MachineBus:
    """Implements `engine.Bus`. `attention` says that the machine wants to be looked at."""

    def __init__(self, machine: BareMachine) -> None:
        self._machine = machine
        self.attention = False
        self.ended = False
        """The machine was switched off or reset. Unicorn ends a block of instructions before it stops: what they do
        does not count.
        """
        self.engine: Engine | None = None
        self.ram: Ram | None = None

    def port_read(self, port: int, size: int) -> int | None:
        """Return what IN reads; None: it is not permitted."""
        return self._machine.port_read(port, size) if self._permitted(port, size) else None

    def port_write(self, port: int, size: int, value: int) -> bool:
        """Do what OUT does; False: it is not permitted."""
        if not self._permitted(port, size):
            return False
        if self.ended:
            return True
        machine = self._machine
        machine.port_write(port, size, value)
        if port not in _QUIET or machine.pending() is not None:
            self.ended = machine.request is not None
            self._look()
        return True

    def mmio_read(self, gpa: int, size: int) -> int:
        """Return what a load reads."""
        return self._machine.mmio_read(gpa, size)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Do what a store does."""
        self._machine.mmio_write(gpa, size, value)
        self._look()

    def note_code(self, gpa: int, size: int) -> None:
        """Remember what was translated, for who writes to RAM beside the CPU."""
        assert self.ram is not None
        self.ram.note_code(gpa, size)

    def _look(self) -> None:
        self.attention = True
        assert self.engine is not None
        self.engine.stop()

    def _permitted(self, port: int, size: int) -> bool:
        """Say whether IOPL or the TSS permits a port access (APM 12.2.4)."""
        engine = self.engine
        assert engine is not None
        engine.save()
        context = engine.context
        flags = context.eflags
        if not context.cr0 & CR0.PE:
            return True
        if not flags & RFLAGS.VM and context.hflags & HF_CPL <= (flags & RFLAGS.IOPL) >> 12:
            return True
        task = context.tr
        if task.flags >> 8 & 0xF not in _TSS_TYPES or task.limit < _MAP_BASE + 1:
            return False
        place = self._read(task.base + _MAP_BASE) + (port >> 3)
        if place + 1 > task.limit:
            return False
        mask = (1 << size) - 1
        return not self._read(task.base + place) >> (port & 7) & mask

    def _read(self, gva: int) -> int:
        """Return two bytes of the TSS; a map that is not there permits nothing."""
        assert self.engine is not None
        assert self.ram is not None
        context, memory = self.engine.context, b""
        for address in (gva, gva + 1):
            try:
                gpa = walk(self.ram.read, context.cr0, context.cr3, context.cr4, context.efer, address)
                memory += self.ram.read(gpa, 1)
            except (NotMapped, LookupError):
                memory += b"\xff"
        return int.from_bytes(memory, "little")
