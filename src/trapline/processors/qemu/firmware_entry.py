"""The code between the reset vector and the monitor: to long mode with SVM, and the shared memory's place.

It is in the firmware's image, and executes from there; nothing of it is written in place.
"""

import struct
from typing import Final

from trapline.arch import cpuid
from trapline.arch.descriptors import CODE_32, CODE_64, DATA_32
from trapline.arch.encode import flat_descriptor, pseudo_descriptor
from trapline.arch.layout import offset_of
from trapline.arch.msr import EFER as EFER_MSR
from trapline.arch.registers import CR0, CR4, EFER
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import (
    AL,
    AX,
    CS,
    DS,
    DX,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ES,
    ESI,
    RAX,
    RBX,
    RCX,
    RDI,
    RSI,
    SS,
    Mem,
    Reg,
)

from . import layout, pci, unlock
from .layout import Owner

SIZE: Final = 0x600
"""Bytes of the entry."""
GDT_AT, NO_IDT_AT, CODE32_AT, CODE64_AT = 0x000, 0x040, 0x080, 0x400
"""What is where in the entry. `NO_IDT_AT`: zeros, the operand of a LIDT after which no exception can be delivered."""

DESCRIPTORS: Final = (0, *map(flat_descriptor, (CODE_32, DATA_32, CODE_64)))
"""Null, flat 32-bit code, flat data, 64-bit code."""
CODE32: Final = 0x08
DATA: Final = 0x10
CODE64: Final = 0x18


def trampoline(offset: int, base: int) -> bytes:
    """From the reset vector in real mode to 32-bit protected mode; the GDT's operand follows the code."""
    blob = b""
    for _ in range(2):  # the operand's address depends on the code's length
        code = Assembler(16)
        code.lgdt(Mem(None, offset + len(blob) or 0x1000, segment=CS, size=32))
        code.mov(EAX, operands.CR0)
        code.or_(EAX, CR0.PE)
        code.mov(operands.CR0, EAX)
        code.far_jump(CODE32, base + CODE32_AT)
        blob = code.assemble(offset)
    return blob + pseudo_descriptor(base + GDT_AT, len(DESCRIPTORS) * 8 - 1, bits=16)


def entry(base: int, *, unlock_svm: bool) -> bytes:
    """Return the entry for an address."""
    blob = bytearray(SIZE)
    struct.pack_into("<4Q", blob, GDT_AT, *DESCRIPTORS)
    for offset, end, code in (
        (CODE32_AT, CODE64_AT, _protected_mode(base, unlock_svm)),
        (CODE64_AT, SIZE, _long_mode(unlock_svm)),
    ):
        machine_code = code.assemble(base + offset)
        assert offset + len(machine_code) <= end, f"{len(machine_code)} bytes of code at {offset:#x}"
        blob[offset : offset + len(machine_code)] = machine_code
    return bytes(blob)


def _protected_mode(base: int, unlock_svm: bool) -> Assembler:
    """Map the shared memory and enter long mode. EDX: the CPU's signature, as RESET left it.

    EBX is then the high half of the shared memory's address.
    """
    code = Assembler(32)
    code.mov(EBP, EDX)
    code.mov(EAX, DATA)
    for segment in (DS, ES, SS):
        code.mov(segment, AX)
    if unlock_svm:
        unlock.make_init_a_reset(code, no_idt=base + NO_IDT_AT)
    for register, value in ((pci.BAR2, layout.LOW_BASE), (pci.BAR2 + 4, 0), (pci.COMMAND, pci.MEMORY_ENABLE)):
        _configure(code, register, value)
    _ask_for_place(code)
    _leave_token(code)
    code.mov(ESI, layout.ENTRY_TABLES_RAM)
    code.mov(EDI, layout.LOW_BASE + layout.ENTRY_TABLES_AT)
    code.mov(ECX, layout.ENTRY_TABLES_SIZE // 4)
    swap(code, ESI, EDI, ECX, EAX)
    _configure(code, pci.BAR2 + 4, EBX)
    _configure(code, pci.BAR2, 0)
    code.mov(EAX, CR4.PAE)
    code.mov(operands.CR4, EAX)
    code.mov(EAX, layout.ENTRY_TABLES_RAM)
    code.mov(operands.CR3, EAX)
    code.mov(ECX, EFER_MSR)
    code.rdmsr()
    code.or_(EAX, EFER.LME | (0 if unlock_svm else EFER.SVME))
    code.wrmsr()
    code.mov(EAX, operands.CR0)
    code.and_(EAX, 0xFFFF_FFFF & ~(CR0.CD | CR0.NW))
    code.or_(EAX, CR0.PG)
    code.mov(operands.CR0, EAX)
    code.far_jump(CODE64, base + CODE64_AT)
    return code


def _configure(code: Assembler, register: int, value: int | Reg) -> None:
    """Write a configuration register of the shared memory's device."""
    code.mov(DX, pci.CONFIG_ADDRESS)
    code.mov(EAX, pci.address(pci.MONITOR_DEVICE, register))
    code.out(DX, EAX)
    code.mov(DX, pci.CONFIG_DATA)
    code.mov(EAX, value)
    code.out(DX, EAX)


def _ask_for_place(code: Assembler) -> None:
    """Describe the CPU in the mailbox, and wait for the high half of the shared memory's address, in EBX then."""
    code.mov(EDI, layout.LOW_BASE + layout.MAILBOX_AT)
    code.mov(EAX, cpuid.LARGEST_EXTENDED)
    code.cpuid()
    code.mov(ESI, EAX)
    for field in ("features", "address_bits"):
        code.mov(_low(field, 32), 0)
    for function, register, field in ((cpuid.EXTENDED, EDX, "features"), (cpuid.SIZES, EAX, "address_bits")):
        code.cmp(ESI, function)
        code.jb("described")
        code.mov(EAX, function)
        code.cpuid()
        code.mov(_low(field), register)
    code.label("described")
    code.mov(_low("placing", 32), 1)
    code.mov(ECX, Owner.HOST.value)
    code.xchg(_low("owner"), ECX)
    code.mov(DX, layout.DOORBELL_PORT)
    code.out(DX, AL)
    code.label("placing")
    code.pause()
    code.cmp(_low("owner", 32), Owner.HOST.value)
    code.je("placing")
    code.mov(EBX, _low("base_high"))


def _low(field: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the mailbox before the shared memory has its place; EDI is its address."""
    return Mem(EDI, offset_of(layout.Mailbox, field), size=size)


def _leave_token(code: Assembler) -> None:
    """Write the token into the guest's RAM, if there is one; EDI is the address of the mailbox."""
    for number in range(2):
        code.mov(EAX, Mem(EDI, offset_of(layout.Mailbox, "token") + 4 * number))
        code.cmp(EAX, 0)
        code.je("found")
        code.mov(Mem(None, layout.TOKEN_AT + 4 * number), EAX)
    code.label("found")


def swap(code: Assembler, one: Reg, other: Reg, count: Reg, passing: Reg, label: str = "swap") -> None:
    """Exchange the contents of two places in memory, of `count` times as many bytes as `passing` has."""
    size = 8 if passing == RAX else 4
    code.label(label)
    first, second = (Mem(place, -size, index=count, scale=size) for place in (one, other))
    code.mov(passing, first)
    code.xchg(second, passing)
    code.mov(first, passing)
    code.dec(count)
    code.jne(label)


def _long_mode(unlock_svm: bool) -> Assembler:
    """Take the monitor's page tables, give the RAM of the others back, and jump to the monitor."""
    code = Assembler(64)
    code.shl(RBX, 32)
    code.lea(RAX, Mem(RBX, layout.PML4_AT))
    code.mov(operands.CR3, RAX)
    code.mov(RSI, layout.ENTRY_TABLES_RAM)
    code.lea(RDI, Mem(RBX, layout.ENTRY_TABLES_AT))
    code.mov(RCX, layout.ENTRY_TABLES_SIZE // 8)
    swap(code, RSI, RDI, RCX, RAX)
    if unlock_svm:
        unlock.set_svme(code)
    code.mov(ESI, EBP)
    code.lea(RAX, Mem(RBX, layout.CODE_AT))
    code.jmp(RAX)
    return code
