"""The states that guests are entered in: real mode, flat 32-bit code, long mode."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from trapline.arch import paging
from trapline.arch.descriptors import CODE_32, CODE_64, DATA_32, REAL_IDT_LIMIT, flat
from trapline.arch.encode import flat_descriptor, page_entry, page_table
from trapline.arch.layout import zero
from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vmcb import load_segment

if TYPE_CHECKING:
    from trapline.arch.registers import Gprs
    from trapline.arch.vmcb import SaveArea

CODE: Final = 0x08
DATA: Final = 0x10

_CODES: Final = {32: CODE_32, 64: CODE_64}

TABLES_SIZE: Final = 6 * PAGE
"""A PML4, a table of the next level, and four that map 1 GiB each."""


def gdt(bits: int) -> bytes:
    """Return the descriptors: null, code of 32 or 64 bits, data."""
    return struct.pack("<3Q", 0, flat_descriptor(_CODES[bits]), flat_descriptor(DATA_32))


def identity_tables(gpa: int) -> bytes:
    """Return page tables for the address `gpa` that map the first 4 GiB to themselves, in pages of 2 MiB."""
    table = paging.P | paging.RW | paging.US
    large = paging.page_size(2)
    pages = [page_entry(number * large, table | paging.PS) for number in range(4 * 512)]
    levels = [
        {0: page_entry(gpa + PAGE, table)},
        {number: page_entry(gpa + (2 + number) * PAGE, table) for number in range(4)},
        *(dict(enumerate(pages[start : start + 512])) for start in range(0, len(pages), 512)),
    ]
    return b"".join(map(page_table, levels))


def enter_real(save: SaveArea, gprs: Gprs, *, address: int, rsp: int, rdx: int, rflags: int = 0) -> None:
    """Enter real mode below 1 MiB: at 0000:address where 16 bits reach it, else at a segment of its own.

    The interrupt vectors are at 0.
    """
    _clear(save, gprs)
    base, save.rip = (0, address) if address < 0x10000 else (address & ~0xF, address & 0xF)
    save.cs.selector, save.cs.base = base >> 4, base
    save.cr0 = CR0.ET
    save.idtr.base, save.idtr.limit = 0, REAL_IDT_LIMIT
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
    load_segment(save.cs, flat(CODE, _CODES[bits]))
    for segment in (save.ds, save.es, save.fs, save.gs, save.ss):
        load_segment(segment, flat(DATA, DATA_32))
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
