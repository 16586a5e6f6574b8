"""The monitor's own page tables and descriptor tables."""

import struct
from collections.abc import Iterable

from trapline.arch import paging
from trapline.arch.descriptors import LONG_GATE_SIZE
from trapline.arch.encode import long_gate, page_entry, page_table, pseudo_descriptor
from trapline.arch.layout import offset_of
from trapline.arch.vectors import Vector

from .firmware_entry import CODE64, DESCRIPTORS
from .layout import ENTRY_TABLES_AT, ENTRY_TABLES_RAM, ENTRY_TABLES_SIZE, PML4_AT, TABLES_AT, Tables


def identity(base: int, root: int) -> bytes:
    """Return tables for the address `root` that map all below `base`, and the GiB from there on, at its own address."""
    table = paging.P | paging.RW | paging.A
    page = table | paging.D | paging.PS
    low, high = root + paging.PAGE, root + 2 * paging.PAGE
    below = {number: page_entry(number << 30, page) for number in range(min(base >> 30, 512))}
    top = {paging.table_index(base, 3): page_entry(base, page)}
    if paging.table_index(base, 4) == 0:
        entries = {0: page_entry(low, table)}
        below |= top
    else:
        entries = {0: page_entry(low, table), paging.table_index(base, 4): page_entry(high, table)}
    return page_table(entries) + page_table(below) + page_table(top)


def write(memory: memoryview, base: int, *, nmi_handler: int, blocks: Iterable[int] = (0,)) -> None:
    """Map the shared memory and all memory below it at their own addresses, in pages of 1 GiB; fill GDT and IDT.

    The firmware gets a copy of the page tables for its entry.

    `base` is the address of the shared memory, `nmi_handler` that of the handler; `blocks` are where in the shared
    memory the blocks of CPUs are, which have descriptor tables of their own.

    The monitor uses the shared memory alone. The rest is for QEMU's gdbstub, which writes by linear address, even to
    ROM: through it the stub reaches the guest's memory while the monitor runs (`stops`).
    """
    for at, root in ((PML4_AT, base + PML4_AT), (ENTRY_TABLES_AT, ENTRY_TABLES_RAM)):
        memory[at : at + ENTRY_TABLES_SIZE] = identity(base, root)
    for block in blocks:
        _write_descriptors(memory, base, block + TABLES_AT, nmi_handler)


def _write_descriptors(memory: memoryview, base: int, at: int, nmi_handler: int) -> None:
    gdt, idt = offset_of(Tables, "gdt"), offset_of(Tables, "idt")
    struct.pack_into("<4Q", memory, at + gdt, *DESCRIPTORS)
    gate = long_gate(CODE64, nmi_handler).to_bytes(16, "little")
    memory[at + idt + LONG_GATE_SIZE * Vector.NMI : at + idt + LONG_GATE_SIZE * (Vector.NMI + 1)] = gate
    for operand, start, limit in (
        ("gdt_operand", gdt, 8 * len(DESCRIPTORS) - 1),
        ("idt_operand", idt, LONG_GATE_SIZE * (Vector.NMI + 1) - 1),
        ("null_idt_operand", 0, 0),
    ):
        place = at + offset_of(Tables, operand)
        memory[place : place + 10] = pseudo_descriptor(base + at + start, limit, bits=64)
