"""The monitor's own page tables and descriptor tables."""

import struct

from trapline.arch import paging
from trapline.arch.descriptors import LONG_GATE_SIZE
from trapline.arch.encode import long_gate, page_entry, page_table, pseudo_descriptor
from trapline.arch.layout import offset_of
from trapline.arch.vectors import Vector

from .firmware import CODE64, DESCRIPTORS
from .layout import IDENTITY_PDPT_AT, PDPT_AT, PML4_AT, TABLES_AT, Tables


def write(memory: memoryview, base: int, *, nmi_handler: int) -> None:
    """Map the shared memory and all memory below it at their own addresses, in pages of 1 GiB; fill GDT and IDT.

    `base` is the address of the shared memory, `nmi_handler` that of the handler.

    The monitor uses the shared memory alone. The rest is for QEMU's gdbstub, which writes by linear address, even to
    ROM: through it the stub reaches the guest's memory while the monitor runs (`stops`).
    """
    table = paging.P | paging.RW | paging.A
    page = table | paging.D | paging.PS
    below = range(min(base >> 30, 512))
    pointers: dict[int, dict[int, int]] = {0: {number: page_entry(number << 30, page) for number in below}}
    pointers.setdefault(paging.table_index(base, 4), {})[paging.table_index(base, 3)] = page_entry(base, page)
    places = dict(zip(pointers, (IDENTITY_PDPT_AT, PDPT_AT), strict=False))
    for at, entries in (
        (PML4_AT, {index: page_entry(base + at, table) for index, at in places.items()}),
        *((at, pointers[index]) for index, at in places.items()),
    ):
        memory[at : at + paging.PAGE] = page_table(entries)
    gdt, idt = offset_of(Tables, "gdt"), offset_of(Tables, "idt")
    struct.pack_into("<4Q", memory, TABLES_AT + gdt, *DESCRIPTORS)
    gate = long_gate(CODE64, nmi_handler).to_bytes(16, "little")
    memory[TABLES_AT + idt + LONG_GATE_SIZE * Vector.NMI : TABLES_AT + idt + LONG_GATE_SIZE * (Vector.NMI + 1)] = gate
    for operand, start, limit in (
        ("gdt_operand", gdt, 8 * len(DESCRIPTORS) - 1),
        ("idt_operand", idt, LONG_GATE_SIZE * (Vector.NMI + 1) - 1),
        ("null_idt_operand", 0, 0),
    ):
        at = TABLES_AT + offset_of(Tables, operand)
        memory[at : at + 10] = pseudo_descriptor(base + TABLES_AT + start, limit, bits=64)
