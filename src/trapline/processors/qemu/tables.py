"""The monitor's own page tables and descriptor tables."""

import struct
from typing import Final

from trapline.arch import paging
from trapline.arch.layout import offset_of

from .firmware import CODE64, DESCRIPTORS
from .layout import BASE, PDPT_AT, PML4_AT, TABLES_AT, Tables

_INTERRUPT_GATE: Final = 0x8E00
"""Present, DPL 0, 64-bit interrupt gate: bits 47:32 of a gate (APM 4.8.4)."""
_NMI: Final = 2


def write(memory: memoryview, *, nmi_handler: int) -> None:
    """Map the shared memory at its own address, one page of 1 GiB; fill GDT and IDT."""
    table = paging.P | paging.RW | paging.A
    struct.pack_into("<Q", memory, PML4_AT + 8 * (BASE >> 39), BASE + PDPT_AT | table)
    struct.pack_into("<Q", memory, PDPT_AT + 8 * (BASE >> 30 & 511), BASE | table | paging.D | paging.PS)
    gdt, idt = offset_of(Tables, "gdt"), offset_of(Tables, "idt")
    struct.pack_into("<4Q", memory, TABLES_AT + gdt, *DESCRIPTORS)
    low, middle, high = nmi_handler & 0xFFFF, nmi_handler >> 16 & 0xFFFF, nmi_handler >> 32
    gate = struct.pack("<HHHHII", low, CODE64, _INTERRUPT_GATE, middle, high, 0)
    memory[TABLES_AT + idt + 16 * _NMI : TABLES_AT + idt + 16 * (_NMI + 1)] = gate
    for operand, start, limit in (
        ("gdt_operand", gdt, 8 * len(DESCRIPTORS) - 1),
        ("idt_operand", idt, 16 * (_NMI + 1) - 1),
        ("null_idt_operand", 0, 0),
    ):
        struct.pack_into("<HQ", memory, TABLES_AT + offset_of(Tables, operand), limit, BASE + TABLES_AT + start)
