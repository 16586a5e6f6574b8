"""The modes in which guests are entered, and their memory, all of it below 64 KiB."""

from functools import cache
from typing import Final, NamedTuple

from trapline.arch import descriptors, encode, paging
from trapline.arch.descriptors import (
    GATE_SIZE,
    LONG_GATE_SIZE,
    REAL_GATE_SIZE,
    REAL_IDT_LIMIT,
    RING_3,
    TSS_SIZE,
    VIRTUAL_8086,
    Attribute,
    GateType,
    SegmentState,
    SystemType,
    flat,
)
from trapline.arch.layout import zero
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS
from trapline.arch.vmcb import SaveArea, Segment, load_segment

SIZE: Final = 0x1_0000
"""Bytes of memory that a check uses, from address 0, mapped to the same linear addresses in each mode."""
GDT: Final = 0x1000
TSS: Final = 0x1800
IDT: Final = 0x2000
HANDLERS: Final = 0x3000
"""A handler for each vector: CPUID, which is intercepted and allowed in every mode and at every CPL."""
HANDLER_SIZE: Final = 4
CODE: Final = 0x4000
CODE_SIZE: Final = 0x20
"""Each check has its own place for its code from `CODE` on: some processors translate code, and do not notice that it
was overwritten from outside.
"""
DATA: Final = 0x8000
KERNEL_STACK: Final = 0xA000
"""The top of the stack at CPL 0, also in the TSS."""
STACK: Final = 0xB000
"""The top of the stack at CPL 3."""
_PDPT_PAE, _PML4, _PDPT, _PD, _PT = 0x1C00, 0xB000, 0xC000, 0xD000, 0xE000
READ_ONLY: Final = 0xF000
UNMAPPED: Final = SIZE

CODE_32, DATA_32, CODE_16, DATA_16, CODE_64 = 0x08, 0x10, 0x18, 0x20, 0x28
USER_CODE_32, USER_DATA_32, USER_CODE_64, USER_CODE_16, USER_DATA_16 = 0x33, 0x3B, 0x43, 0x4B, 0x53
TASK: Final = 0x58
ABSENT_DATA: Final = 0x68
GDT_LIMIT: Final = 0x6F
BEYOND_GDT: Final = 0xFFF8
"""A selector beyond GDT_LIMIT."""

_ATTRIBUTES: Final = {
    CODE_32: descriptors.CODE_32,
    DATA_32: descriptors.DATA_32,
    CODE_16: descriptors.CODE_16,
    DATA_16: descriptors.DATA_16,
    CODE_64: descriptors.CODE_64,
    USER_CODE_32: descriptors.CODE_32 | RING_3,
    USER_DATA_32: descriptors.DATA_32 | RING_3,
    USER_CODE_64: descriptors.CODE_64 | RING_3,
    USER_CODE_16: descriptors.CODE_16 | RING_3,
    USER_DATA_16: descriptors.DATA_16 | RING_3,
    ABSENT_DATA: descriptors.DATA_32 & ~Attribute.P,
}
_TASK: Final = SegmentState(TASK, Attribute.P | SystemType.TSS_32, TSS_SIZE - 1, TSS)
"""A TSS that is not busy: VMRUN does not check it, and QEMU gives up at a busy one."""
CPUID: Final = b"\x0f\xa2"


class Mode(NamedTuple):
    """A mode of the CPU."""

    name: str
    bits: int
    """The size of its code."""
    cr0: int
    gate: int
    """The type of its gates; 0: real mode, which has none."""
    code: tuple[int, int]
    """Selectors at CPL 0 and 3."""
    data: tuple[int, int]
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    flags: int = 0
    cpls: tuple[int, ...] = (0, 3)

    @property
    def long(self) -> bool:
        """Whether long mode is active."""
        return bool(self.efer & EFER.LMA)

    def stack(self, cpl: int) -> int:
        """Return the top of the stack."""
        return STACK if cpl else KERNEL_STACK


_PROTECTED: Final = CR0.PE | CR0.ET | CR0.NE
_PAGED: Final = _PROTECTED | CR0.WP | CR0.PG
_LONG: Final = EFER.LME | EFER.LMA

REAL: Final = Mode("real mode", 16, CR0.ET, 0, (0, 0), (0, 0), cpls=(0,))
PROTECTED_16: Final = Mode(
    "16-bit protected mode", 16, _PROTECTED, GateType.INTERRUPT_16, (CODE_16, USER_CODE_16), (DATA_16, USER_DATA_16)
)
PROTECTED_32: Final = Mode(
    "32-bit protected mode", 32, _PROTECTED, GateType.INTERRUPT_32, (CODE_32, USER_CODE_32), (DATA_32, USER_DATA_32)
)
PAGED_32: Final = PROTECTED_32._replace(name="32-bit mode with paging", cr0=_PAGED, cr3=_PDPT_PAE, cr4=CR4.PAE)
VIRTUAL: Final = Mode(
    "virtual-8086 mode", 16, _PROTECTED, GateType.INTERRUPT_32, (0, 0), (0, 0),
    flags=RFLAGS.VM | RFLAGS.IOPL, cpls=(3,),
)  # fmt: skip
LONG: Final = Mode(
    "64-bit mode", 64, _PAGED, GateType.INTERRUPT_32, (CODE_64, USER_CODE_64), (DATA_32, USER_DATA_32),
    _PML4, CR4.PAE, _LONG,
)  # fmt: skip
COMPATIBILITY: Final = LONG._replace(name="compatibility mode", bits=32, code=(CODE_32, USER_CODE_32))

MODES: Final = (REAL, PROTECTED_16, PROTECTED_32, PAGED_32, VIRTUAL, LONG, COMPATIBILITY)
EVERYWHERE: Final = tuple((mode, cpl) for mode in MODES for cpl in mode.cpls)
"""Each mode at each of its CPLs."""


def where(mode: Mode, cpl: int) -> str:
    """Return mode and CPL as text."""
    return f"in {mode.name}" + (f" at CPL {cpl}" if len(mode.cpls) > 1 else "")


def handler(vector: int) -> int:
    """Return the address of a vector's handler."""
    return HANDLERS + HANDLER_SIZE * vector


def page_table_entry(page: int) -> int:
    """Return the address of a page's entry in the page table, which all paged modes share."""
    return _PT + paging.table_index(page, 1) * 8


@cache
def image(mode: Mode) -> bytes:
    """Return the memory of a mode: descriptors, gates, handlers, page tables."""
    memory = bytearray(SIZE)
    for selector, attributes in _ATTRIBUTES.items():
        put(memory, GDT + (selector & ~3), encode.flat_descriptor(attributes).to_bytes(8, "little"))
    task = encode.descriptor(_TASK.base, _TASK.limit, _TASK.attributes)
    put(memory, GDT + TASK, task.to_bytes(8, "little"))
    legacy = encode.tss(SystemType.TSS_32, [(mode_stack(mode), KERNEL_STACK)])
    put(memory, TSS, encode.long_tss([KERNEL_STACK]) if mode.long else legacy)
    for vector in range(256):
        put(memory, handler(vector), CPUID)
        put(memory, *gate(mode, vector))
    _put_page_tables(memory)
    return bytes(memory)


def mode_stack(mode: Mode) -> int:
    """Return the stack selector of a mode's handlers."""
    return DATA_16 if mode.gate == GateType.INTERRUPT_16 else DATA_32


def gate(mode: Mode, vector: int, *, present: bool = True) -> tuple[int, bytes]:
    """Return (gpa, bytes) of the gate of a vector, with DPL 3."""
    offset = handler(vector)
    if not mode.gate:
        return vector * REAL_GATE_SIZE, encode.far_pointer(0, offset).to_bytes(4, "little")
    selector = CODE_64 if mode.long else CODE_16 if mode.gate == GateType.INTERRUPT_16 else CODE_32
    encoder, size = (encode.long_gate, LONG_GATE_SIZE) if mode.long else (encode.gate, GATE_SIZE)
    row = encoder(selector, offset, mode.gate, dpl=3, present=present)
    return IDT + vector * size, row.to_bytes(size, "little")


def enter(save: SaveArea, mode: Mode, cpl: int, rip: int) -> None:
    """Write the state of a mode to the whole save area."""
    zero(save)
    save.cr0, save.cr3, save.cr4, save.efer = mode.cr0, mode.cr3, mode.cr4, mode.efer | EFER.SVME
    save.dr6, save.dr7, save.rflags = DR6.FIXED, DR7.FIXED, mode.flags | RFLAGS.ALWAYS_ONE
    save.rip, save.rsp, save.cpl = rip, mode.stack(cpl), cpl
    save.gdtr.base, save.gdtr.limit = GDT, GDT_LIMIT
    save.idtr.base, save.idtr.limit = (IDT, 256 * LONG_GATE_SIZE - 1) if mode.gate else (0, REAL_IDT_LIMIT)
    load_segment(save.ldtr, flat(0, Attribute.P | SystemType.LDT))
    load_segment(save.tr, _TASK)
    user = int(cpl == 3)
    for segment in (save.es, save.ss, save.ds, save.fs, save.gs):
        _enter_segment(segment, mode, mode.data[user], descriptors.DATA_16)
    _enter_segment(save.cs, mode, mode.code[user], descriptors.CODE_16)


def put(memory: bytearray, at: int, data: bytes) -> None:
    """Write bytes at an address."""
    memory[at : at + len(data)] = data


def _enter_segment(segment: Segment, mode: Mode, selector: int, real: int) -> None:
    if mode.flags & RFLAGS.VM:
        load_segment(segment, flat(0, VIRTUAL_8086))
    elif not mode.gate:
        load_segment(segment, flat(0, real))
    else:
        load_segment(segment, flat(selector, _ATTRIBUTES[selector]))


def _put_page_tables(memory: bytearray) -> None:
    """Map the memory to itself for all CPLs, one page read-only, with accessed and dirty bits set."""
    rights = paging.P | paging.RW | paging.US | paging.A | paging.D
    for table, next_table in ((_PML4, _PDPT), (_PDPT, _PD), (_PD, _PT)):
        put(memory, table, encode.page_entry(next_table, rights).to_bytes(8, "little"))
    put(memory, _PDPT_PAE, encode.page_entry(_PD, paging.P).to_bytes(8, "little"))
    for page in range(0, SIZE, paging.PAGE):
        kept = rights & ~paging.RW if page == READ_ONLY else rights
        put(memory, page_table_entry(page), encode.page_entry(page, kept).to_bytes(8, "little"))
