"""The states that guests are entered in: real mode, flat 32-bit code, long mode."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from trapline.arch import paging
from trapline.arch.layout import zero
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS

if TYPE_CHECKING:
    from trapline.arch.registers import Gprs
    from trapline.arch.vmcb import SaveArea, Segment

CODE: Final = 0x08
DATA: Final = 0x10

# APM 4.8: accessed code and data, 4 KiB granular, limit 4 GiB. 64-bit code has L in place of D.
_DATA: Final = 0x00CF_9300_0000_FFFF
_CODES: Final = {32: 0x00CF_9B00_0000_FFFF, 64: 0x00AF_9B00_0000_FFFF}

TABLES_SIZE: Final = 6 * 0x1000
"""A PML4, a table of the next level, and four that map 1 GiB each."""
_LARGE: Final = 1 << 21


def gdt(bits: int) -> bytes:
    """Return the descriptors: null, code of 32 or 64 bits, data."""
    return struct.pack("<3Q", 0, _CODES[bits], _DATA)


def identity_tables(gpa: int) -> bytes:
    """Return page tables for the address `gpa` that map the first 4 GiB to themselves, in pages of 2 MiB."""
    table = paging.P | paging.RW | paging.US
    pml4 = [gpa + 0x1000 | table]
    directories = [gpa + 0x2000 + number * 0x1000 | table for number in range(4)]
    pages = [number * _LARGE | paging.PS | table for number in range(4 * 512)]
    return b"".join(struct.pack(f"<{len(level)}Q", *level).ljust(0x1000, b"\0") for level in (pml4, directories, pages))


def enter_real(save: SaveArea, gprs: Gprs, *, address: int, rsp: int, rdx: int, rflags: int = 0) -> None:
    """Enter real mode below 1 MiB: at 0000:address where 16 bits reach it, else at a segment of its own.

    The interrupt vectors are at 0.
    """
    _clear(save, gprs)
    base, save.rip = (0, address) if address < 0x10000 else (address & ~0xF, address & 0xF)
    save.cs.selector, save.cs.base = base >> 4, base
    save.cr0 = CR0.ET
    save.idtr.base, save.idtr.limit = 0, 0x3FF
    save.rflags |= rflags
    save.rsp, gprs.rdx = rsp, rdx


def enter_flat(
    save: SaveArea,
    gprs: Gprs,
    *,
    bits: int,
    entry: int,
    rsp: int,
    gdt_base: int,
    tables: int,
    rax: int,
    rbx: int,
) -> None:
    """Enter flat code, interrupts off, without an IDT: of 32 bits without paging, or of 64 bits with CR3 = `tables`."""
    _clear(save, gprs)
    save.gdtr.base, save.gdtr.limit = gdt_base, len(gdt(bits)) - 1
    save.idtr.base = save.idtr.limit = 0
    _load(save.cs, CODE, _CODES[bits])
    for segment in (save.ds, save.es, save.fs, save.gs, save.ss):
        _load(segment, DATA, _DATA)
    save.cr0 = CR0.PE | CR0.ET
    if bits == 64:
        save.cr0 |= CR0.NE | CR0.WP | CR0.PG
        save.cr4, save.cr3 = CR4.PAE, tables
        save.efer |= EFER.LME | EFER.LMA
    save.rip, save.rsp, save.rax, gprs.rbx = entry, rsp, rax, rbx


def _clear(save: SaveArea, gprs: Gprs) -> None:
    zero(gprs)
    save.rax = 0
    save.rflags = RFLAGS.ALWAYS_ONE


def _load(segment: Segment, selector: int, descriptor: int) -> None:
    segment.selector = selector
    segment.attributes = descriptor >> 40 & 0xFF | descriptor >> 44 & 0xF00
    segment.limit = 0xFFFF_FFFF
    segment.base = 0
