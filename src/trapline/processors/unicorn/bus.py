"""The bare machine as Unicorn reaches it: ports with their permissions, and memory that is no RAM."""

from typing import Final

from trapline.arch.address_space import AddressSpace
from trapline.arch.descriptors import IO_MAP_BASE, IO_MAP_TSS
from trapline.arch.paging import IMPLICIT, READ, NotMapped, PageFault
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import Vector
from trapline.devices.machine import BareMachine

from .engine import Engine
from .memory import Ram
from .uc_context import HF_CPL

_QUIET: Final = frozenset((*range(0x3F8, 0x400), 0xE9))
"""Consoles: nothing that is written there needs a look at the rest of the machine, but for an interrupt."""

_FORBIDDEN: Final[tuple[int, int, int | None]] = (Vector.GP, 0, None)


class MachineBus:
    """Implements `engine.Bus`. `attention` says that the machine wants to be looked at."""

    def __init__(self, machine: BareMachine, *, physical_bits: int) -> None:
        self._machine = machine
        self._physical_bits = physical_bits
        self.attention = False
        self.ended = False
        """The machine was switched off or reset. Unicorn ends a block of instructions before it stops: what they do
        does not count.
        """
        self.refusal = _FORBIDDEN
        """Why the last port access was not permitted: vector, error code and, of a #PF, the address."""
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
        self.refusal = _FORBIDDEN
        if task.flags >> 8 & 0xF not in IO_MAP_TSS or task.limit < IO_MAP_BASE + 1:
            return False
        try:
            place = self._read(task.base + IO_MAP_BASE) + (port >> 3)
            if place + 1 > task.limit:
                return False
            return not self._read(task.base + place) >> (port & 7) & (1 << size) - 1
        except PageFault as fault:
            self.refusal = (Vector.PF, fault.error_code, fault.address)
        except NotMapped:
            pass  # not canonical: #GP(0)
        return False

    def _read(self, gva: int) -> int:
        """Return two bytes of the TSS; raises PageFault and NotMapped."""
        assert self.engine is not None
        assert self.ram is not None
        ram, context = self.ram, self.engine.context
        space = AddressSpace(ram, context.cr0, context.cr3, context.cr4, context.efer, self._physical_bits)
        found = 0
        for number in range(2):
            gpa = space.translate(gva + number & space.mask, READ | IMPLICIT)
            found |= (ram.u32(gpa & ~3) >> 8 * (gpa & 3) & 0xFF) << 8 * number
        for gpa, data in space.writes:
            ram.write(gpa, data)
        return found
