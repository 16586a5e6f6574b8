"""Linear addresses of a stopped guest: its code, its stack, and memory through its page tables (APM 1.2, 4.5.3).

Page tables are read for presence only: rights are not checked, and accessed and dirty bits are not set.
"""

from collections.abc import Iterator
from typing import Final

from trapline.arch.address_space import walk
from trapline.arch.bits import M16, M32, M64
from trapline.arch.descriptors import Attribute
from trapline.arch.paging import PAGE, PAGE_OFFSET, NotMapped
from trapline.arch.registers import EFER
from trapline.arch.vmcb import SaveArea
from trapline.errors import FaultError

from .memory import GuestMemory

LONGEST: Final = 15
"""Bytes in the longest instruction (APM vol. 3, 1.1)."""


def code_bits(save: SaveArea) -> int:
    """Return the size of code that the guest executes: 16, 32 or 64 (APM 4.7.2, 4.8.1)."""
    attributes = save.cs.attributes
    if save.efer & EFER.LMA and attributes & Attribute.L:
        return 64
    return 32 if attributes & Attribute.DB else 16


def address_mask(save: SaveArea) -> int:
    """Return the bits of a linear address: 64 in 64-bit code, else 32, since segmentation wraps there."""
    return M64 if code_bits(save) == 64 else M32


def code_base(save: SaveArea) -> int:
    """Return what is added to RIP for a linear address; 64-bit code ignores the base of CS (APM 4.5.3)."""
    return 0 if code_bits(save) == 64 else save.cs.base


def stack_base(save: SaveArea) -> int:
    """Return what is added to RSP for a linear address; 64-bit code ignores the base of SS (APM 4.5.3)."""
    return 0 if code_bits(save) == 64 else save.ss.base


def stack_pointer(save: SaveArea) -> int:
    """Return RSP, ESP or SP: the one that a push would use (APM 2.1, 4.7.3)."""
    bits = code_bits(save)
    if bits == 64:
        return save.rsp
    return save.rsp & (M32 if save.ss.attributes & Attribute.DB else M16)


def code_address(save: SaveArea) -> int:
    """Return the linear address of the instruction at CS:RIP."""
    return save.rip if code_bits(save) == 64 else save.cs.base + save.rip & 0xFFFF_FFFF


def stack_address(save: SaveArea) -> int:
    """Return the linear address of the top of the stack, SS:RSP."""
    return stack_base(save) + stack_pointer(save) & address_mask(save)


def next_rip(save: SaveArea, length: int) -> int:
    """Return the RIP after an instruction of `length` bytes; it wraps at 32 bits outside 64-bit code."""
    return save.rip + length & address_mask(save)


def translate(save: SaveArea, memory: GuestMemory, gva: int) -> int:
    """Return the gpa of a linear address; raises FaultError where no page is mapped."""
    try:
        return walk(memory.read, save.cr0, save.cr3, save.cr4, save.efer, gva)
    except NotMapped:
        raise
    except FaultError as error:
        raise FaultError(gva, f"there is no memory at {error.address:#x}, where its page table should be") from error


def read_linear(save: SaveArea, memory: GuestMemory, gva: int, size: int) -> bytes:
    """Return `size` bytes at a linear address; raises FaultError if not all of them are mapped to memory."""
    return b"".join(_read(save, memory, gva, size))


def read_mapped(save: SaveArea, memory: GuestMemory, gva: int, size: int) -> bytes:
    """Return up to `size` bytes at a linear address: as many as come before the first page that is not mapped."""
    parts = []
    try:
        for part in _read(save, memory, gva, size):
            parts.append(part)
    except FaultError:
        pass
    return b"".join(parts)


def read_code(save: SaveArea, memory: GuestMemory) -> bytes:
    """Return the bytes at CS:RIP that an instruction can have: fewer before a page that is not mapped."""
    gva = code_address(save)
    if gva & PAGE_OFFSET > PAGE - LONGEST:
        return read_mapped(save, memory, gva, LONGEST)
    try:
        return memory.read(walk(memory.read, save.cr0, save.cr3, save.cr4, save.efer, gva), LONGEST)
    except FaultError:
        return b""


def write_linear(save: SaveArea, memory: GuestMemory, gva: int, data: bytes) -> None:
    """Store bytes at a linear address, read-only pages included; raises FaultError.

    Nothing is stored unless every page is mapped.
    """
    parts = [(at, translate(save, memory, at), size) for at, size in _split(gva, len(data))]
    for at, gpa, size in parts:
        try:
            memory.write(gpa, data[at - gva : at - gva + size])
        except FaultError as error:
            raise _without_memory(at, gpa) from error


def _read(save: SaveArea, memory: GuestMemory, gva: int, size: int) -> Iterator[bytes]:
    for at, part in _split(gva, size):
        gpa = translate(save, memory, at)
        try:
            data = memory.read(gpa, part)
        except FaultError as error:
            raise _without_memory(at, gpa) from error
        yield data


def _split(gva: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield address and size of each piece that is in one page."""
    end = gva + size
    while gva < end:
        part = min(end - gva, PAGE - gva % PAGE)
        yield gva, part
        gva += part


def _without_memory(gva: int, gpa: int) -> FaultError:
    return FaultError(gva, f"it is mapped to {gpa:#x}, where there is no memory")
