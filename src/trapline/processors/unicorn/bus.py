"""The devices as Unicorn reaches them: ports with their permissions, and memory that is not RAM."""

from typing import Final

from trapline.arch.address_space import AddressSpace
from trapline.arch.descriptors import IO_MAP_BASE, IO_MAP_TSS
from trapline.arch.paging import IMPLICIT, READ, NotMapped, PageFault
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import Vector
from trapline.devices import debugcon, lapic
from trapline.devices.machine import BareMachine
from trapline.devices.uart import COM1
from trapline.machine.io_map import misplaced

from .binding import Binding
from .memory import Ram
from .pending import Pending
from .uc_context import HF_CPL

_CONSOLES: Final = frozenset((*range(COM1, COM1 + 8), debugcon.PORT))
"""A write to these ports affects no other device, except by an interrupt."""

_FORBIDDEN: Final[tuple[int, int, int | None]] = (Vector.GP, 0, None)


class MachineBus:
    """Implements `hooks.Bus`."""

    def __init__(
        self,
        machine: BareMachine,
        number: int,
        binding: Binding,
        ram: Ram,
        pending: Pending,
        *,
        physical_bits: int,
        turns: bool,
    ) -> None:
        """`number` is that of the CPU; `turns`: it executes in turns, and gives its own up as it sends an interrupt."""
        self._machine, self._binding, self._ram, self._pending = machine, binding, ram, pending
        self._number, self._pins = number, machine.cpus[number]
        self._command = lapic.BASE + lapic.COMMAND if turns else None
        self._physical_bits = physical_bits
        self.refusal = _FORBIDDEN
        """Why the last port access was not permitted: vector, error code and, of a #PF, the address."""

    def port_read(self, port: int, size: int) -> int:
        """Return what IN reads."""
        return self._machine.port_read(port, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Do what OUT does."""
        machine, pending = self._machine, self._pending
        if pending.ended:
            return
        machine.port_write(port, size, value)
        if port not in _CONSOLES or self._pins.pending() is not None:
            pending.ended = machine.request is not None
            pending.interrupt()

    def mmio_read(self, gpa: int, size: int) -> int:
        """Return what a load reads."""
        return self._machine.mmio_read(gpa, size, self._number)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Do what a store does."""
        self._machine.mmio_write(gpa, size, value, self._number)
        if gpa == self._command:
            self._pending.give_up_turn()
        self._pending.interrupt()

    def permits(self, port: int, size: int) -> bool:
        """Return whether IOPL or the TSS permits a port access (APM 12.2.4)."""
        self._binding.save()
        context = self._binding.context
        flags = context.eflags
        if not context.cr0 & CR0.PE:
            return True
        if not flags & RFLAGS.VM and context.hflags & HF_CPL <= (flags & RFLAGS.IOPL) >> RFLAGS.IOPL_SHIFT:
            return True
        task = context.tr
        self.refusal = _FORBIDDEN
        if task.flags >> 8 & 0xF not in IO_MAP_TSS or task.limit < IO_MAP_BASE + 1:
            return False
        try:
            base = self._read(task.base + IO_MAP_BASE)
            place = base + (port >> 3)
            if place + 1 > task.limit or self._read(task.base + place) >> (port & 7) & (1 << size) - 1:
                return False
        except PageFault as fault:
            self.refusal = (Vector.PF, fault.error_code, fault.address)
        except NotMapped:
            pass  # not canonical: #GP(0)
        else:
            if not flags & RFLAGS.VM and (told := misplaced(port, base, task.limit)) is not None:
                self._machine.tell("the I/O map", told)
            return True
        return False

    def _read(self, gva: int) -> int:
        """Return two bytes of the TSS; raises PageFault and NotMapped."""
        ram, context = self._ram, self._binding.context
        space = AddressSpace(ram, context.cr0, context.cr3, context.cr4, context.efer, self._physical_bits)
        found = 0
        for number in range(2):
            gpa = space.translate(gva + number & space.mask, READ | IMPLICIT)
            found |= (ram.u32(gpa & ~3) >> 8 * (gpa & 3) & 0xFF) << 8 * number
        for gpa, data in space.writes:
            ram.write(gpa, data)
        return found
