"""INS and OUTS, element by element: the memory that they move, and what they leave in registers (APM vol. 3).

Segment limits are not checked, as QEMU's TCG does not. What is not RAM reads as all ones, and does not keep a store.
"""

import contextlib
from typing import Final, NamedTuple

from trapline.arch import ioio
from trapline.arch.address_space import AddressSpace
from trapline.arch.exits import exception_exit
from trapline.arch.memory import ReaderMemory, open_bus
from trapline.arch.paging import PAGE, READ, USER, WRITE, NotMapped, PageFault
from trapline.arch.registers import RFLAGS, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.asm.accesses import accesses_at_rip
from trapline.asm.decoder import address_bits, instruction_at_rip
from trapline.errors import FaultError
from trapline.machine.memory import GuestMemory

_USER_CPL: Final = 3


class StringFault(NamedTuple):
    """An exception that the access to memory raises, as its exit has it."""

    exit_code: int
    exit_info_1: int
    exit_info_2: int


class Element(NamedTuple):
    """The next element of a string instruction."""

    writes: bool
    """INS."""
    pieces: tuple[tuple[int, int], ...]
    """Guest-physical address and size of each part that is in one page."""
    bits: int
    """Of an address, and of the counter."""
    step: int
    """From an element to the next."""
    repeated: bool

    def load(self, memory: GuestMemory) -> int:
        """Return the element in memory."""
        read = open_bus(memory.read)
        return int.from_bytes(b"".join(read(gpa, size) for gpa, size in self.pieces), "little")

    def store(self, memory: GuestMemory, value: int) -> None:
        """Store the element."""
        for gpa, size in self.pieces:
            with contextlib.suppress(FaultError):
                memory.write(gpa, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
            value >>= 8 * size

    def advance(self, gprs: Gprs) -> bool:
        """Step the registers to the next element; True: there is one."""
        index = "rdi" if self.writes else "rsi"
        setattr(gprs, index, _sum(getattr(gprs, index), self.step, self.bits))
        if not self.repeated:
            return False
        gprs.rcx = _sum(gprs.rcx, -1, self.bits)
        return _counter(gprs, self.bits) != 0


def next_element(
    save: SaveArea, gprs: Gprs, memory: GuestMemory, physical_bits: int, info: int
) -> Element | StringFault | None:
    """Return the next element of the INS or OUTS at CS:RIP; None: its counter is zero.

    `info` is EXITINFO1 of its exit. Accessed and dirty bits of the page tables are set.
    """
    instruction = instruction_at_rip(save, memory)
    bits = address_bits(instruction)
    repeated, writes, size = bool(info & ioio.REPEATED), bool(info & ioio.IN), ioio.size(info)
    if repeated and not _counter(gprs, bits):
        return None
    (gva,) = (access.gva for access in accesses_at_rip(save, gprs, memory))
    space = AddressSpace(ReaderMemory(open_bus(memory.read)), save.cr0, save.cr3, save.cr4, save.efer, physical_bits)
    kind = (WRITE if writes else READ) | (USER if save.cpl == _USER_CPL else 0)
    first = min(size, PAGE - gva % PAGE)
    try:
        pieces = tuple(
            (space.translate(at & space.mask, kind, bool(save.rflags & RFLAGS.AC)), part)
            for at, part in ((gva, first), (gva + first, size - first))
            if part
        )
    except NotMapped:
        return StringFault(exception_exit(Vector.GP), 0, 0)  # in 64-bit code, where a prefix for SS does nothing
    except PageFault as fault:
        return StringFault(exception_exit(Vector.PF), fault.error_code, fault.address)
    for gpa, data in space.writes:
        with contextlib.suppress(FaultError):
            memory.write(gpa, data)
    return Element(writes, pieces, bits, -size if save.rflags & RFLAGS.DF else size, repeated)


def _counter(gprs: Gprs, bits: int) -> int:
    return gprs.rcx & (1 << bits) - 1


def _sum(register: int, change: int, bits: int) -> int:
    """Return a register after an addition to its low part; one of 32 bits clears the rest (APM vol. 1, 3.1.2)."""
    mask = (1 << bits) - 1
    return (register & ~mask if bits < 32 else 0) | register + change & mask
