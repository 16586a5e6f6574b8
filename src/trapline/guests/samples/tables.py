"""The tables of a sample guest as bytes: GDT, TSS, IDT, page tables (APM 4.7-4.8, 5.3, 12.2)."""

import struct
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from trapline.arch import paging
from trapline.arch.vectors import VECTORS

from . import places

_PAGE = 0x1000
_INTERRUPT_GATE = 0xE


class Gate(NamedTuple):
    """A row of the IDT."""

    offset: int
    selector: int = places.CODE_SELECTOR
    present: bool = True
    ist: int = 0
    dpl: int = 0


def gdt(bits: int) -> bytes:
    """Return the descriptors at the selectors that `places` names."""
    size = {32: 0x0040_0000_0000_0000, 64: 0x0020_0000_0000_0000}[bits]
    return struct.pack(
        "<10Q",
        0,
        0x008F_9B00_0000_FFFF | size,
        0x00CF_9300_0000_FFFF,
        0x00CF_FB00_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x008F_FB00_0000_FFFF | size,
        _system(places.TSS, places.TSS_SIZE - 1, 0x89),
        0,  # the upper half of a 64-bit TSS descriptor: the base is below 4 GiB
        _system(0, 0xF_FFFF, 0x13),
        _system(places.TSS, 0x20, 0x89),
    )


def _system(base: int, limit: int, kind: int) -> int:
    low = limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | kind << 40
    return low | (limit >> 16) << 48 | (base >> 24) << 56


def tss(bits: int, rsp0: int, ist1: int) -> bytes:
    """Return a TSS that names the stack of CPL 0, and in long mode the first interrupt stack."""
    if bits == 64:
        return struct.pack("<4xQ24xQ", rsp0, ist1).ljust(places.TSS_SIZE, b"\0")
    return struct.pack("<4xII", rsp0, places.DATA_SELECTOR).ljust(places.TSS_SIZE, b"\0")


def idt(bits: int, gates: Mapping[int, Gate]) -> bytes:
    """Return the gates by vector, from 0 to the highest."""
    rows = (gates.get(vector) for vector in range(max(gates, default=-1) + 1))
    return b"".join(bytes(2 * bits // 8) if gate is None else _gate(bits, gate) for gate in rows)


def _gate(bits: int, gate: Gate) -> bytes:
    offset = gate.offset & (1 << 64) - 1
    kind = gate.present << 7 | gate.dpl << 5 | _INTERRUPT_GATE
    row = struct.pack("<HHBBH", offset & 0xFFFF, gate.selector, gate.ist, kind, offset >> 16 & 0xFFFF)
    return row + struct.pack("<II", offset >> 32, 0) if bits == 64 else row


def page_tables(unmapped: Collection[int], user: Iterable[int]) -> dict[int, bytes]:
    """Return the tables by address: the first 2 MiB by pages, but for `unmapped` ones; LAZY without a page.

    Pages in `user` are for CPL 3 too.
    """
    kernel = paging.P | paging.RW
    open_to_all = kernel | paging.US
    pages = [0 if gpa in unmapped else gpa | kernel for gpa in range(0, 512 * _PAGE, _PAGE)]
    for gpa in user:
        pages[gpa // _PAGE] |= paging.US
    return {
        places.PML4: _words(places.PDPT | open_to_all),
        places.PDPT: _words(places.DIRECTORY | open_to_all, places.LAZY_DIRECTORY | kernel),
        places.DIRECTORY: _words(places.PAGES | open_to_all),
        places.PAGES: _words(*pages),
        places.LAZY_DIRECTORY: _words(places.LAZY_PAGES | kernel),
    }


def names() -> bytes:
    """Return the mnemonics of the vectors, each with its zero."""
    return b"".join(row.mnemonic.encode().ljust(places.NAME_SIZE, b"\0") for row in VECTORS)


def _words(*entries: int) -> bytes:
    return struct.pack(f"<{len(entries)}Q", *entries)
