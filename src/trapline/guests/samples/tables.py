"""The tables of a sample guest as bytes: GDT, TSS, IDT, page tables (APM 4.7-4.8, 5.3, 12.2)."""

import struct
from collections.abc import Collection, Mapping
from typing import NamedTuple

from trapline.arch import encode, paging
from trapline.arch.descriptors import CODE_32, CODE_64, DATA_32, RING_3, TSS_SIZE, Attribute, SystemType
from trapline.arch.encode import descriptor, flat_descriptor, long_gate, long_tss, page_entry, page_table
from trapline.arch.paging import PAGE
from trapline.arch.vectors import VECTORS

from . import places


class Gate(NamedTuple):
    """A row of the IDT."""

    offset: int
    selector: int = places.CODE_SELECTOR
    present: bool = True
    ist: int = 0
    dpl: int = 0


def gdt(bits: int) -> bytes:
    """Return the descriptors at the selectors that `places` names."""
    code = {32: CODE_32, 64: CODE_64}[bits]
    available = Attribute.P | SystemType.TSS_32
    return struct.pack(
        "<10Q",
        0,
        flat_descriptor(code),
        flat_descriptor(DATA_32),
        flat_descriptor(CODE_32 | RING_3),
        flat_descriptor(DATA_32 | RING_3),
        flat_descriptor(code | RING_3),
        descriptor(places.TSS, TSS_SIZE - 1, available),
        0,  # the upper half of a 64-bit TSS descriptor: the base is below 4 GiB
        flat_descriptor(DATA_32 & ~Attribute.P),
        descriptor(places.TSS, 0x20, available),
    )


def tss(bits: int, rsp0: int, ist1: int) -> bytes:
    """Return a TSS that names the stack of CPL 0, and in long mode the first interrupt stack."""
    if bits == 64:
        return long_tss([rsp0], [ist1])
    return encode.tss(SystemType.TSS_32, [(places.DATA_SELECTOR, rsp0)])


def idt(bits: int, gates: Mapping[int, Gate]) -> bytes:
    """Return the gates by vector, from 0 to the highest."""
    rows = (gates.get(vector) for vector in range(max(gates, default=-1) + 1))
    return b"".join(bytes(2 * bits // 8) if gate is None else _gate(bits, gate) for gate in rows)


def _gate(bits: int, gate: Gate) -> bytes:
    encoder = long_gate if bits == 64 else encode.gate
    offset = gate.offset & (1 << bits) - 1
    row = encoder(gate.selector, offset, dpl=gate.dpl, ist=gate.ist, present=gate.present)
    return row.to_bytes(2 * bits // 8, "little")


def page_tables(unmapped: Collection[int], user: Collection[int]) -> dict[int, bytes]:
    """Return the tables by address: the first 2 MiB by pages, but for `unmapped` ones; LAZY without a page.

    Pages in `user` are for CPL 3 too.
    """
    kernel = paging.P | paging.RW
    open_to_all = kernel | paging.US
    pages = {
        paging.table_index(gpa, 1): page_entry(gpa, open_to_all if gpa in user else kernel)
        for gpa in range(0, paging.page_size(2), PAGE)
        if gpa not in unmapped
    }
    lazy = paging.table_index(places.LAZY, 3)
    return {
        places.PML4: page_table({0: page_entry(places.PDPT, open_to_all)}),
        places.PDPT: page_table(
            {0: page_entry(places.DIRECTORY, open_to_all), lazy: page_entry(places.LAZY_DIRECTORY, kernel)}
        ),
        places.DIRECTORY: page_table({0: page_entry(places.PAGES, open_to_all)}),
        places.PAGES: page_table(pages),
        places.LAZY_DIRECTORY: page_table({0: page_entry(places.LAZY_PAGES, kernel)}),
    }


def names() -> bytes:
    """Return the mnemonics of the vectors, each with its zero."""
    return b"".join(row.mnemonic.encode().ljust(places.NAME_SIZE, b"\0") for row in VECTORS)
