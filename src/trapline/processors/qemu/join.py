"""How further CPUs come into the monitor, before the guest can start them: by a startup IPI of the boot CPU's.

The code is in low memory for its moment, which is given back, as the page tables of the firmware's entry are. One CPU
at a time gets SVM: all have the same SMBASE after a reset (`unlock`). Then each takes its block of the shared memory,
and waits in the monitor until the guest sends a startup IPI of its own.
"""

from typing import Final

from trapline.arch.layout import offset_of
from trapline.arch.msr import EFER as EFER_MSR
from trapline.arch.registers import CR0, CR4, EFER
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, DS, EAX, EBP, ECX, EDX, ES, ESI, RAX, RBX, RCX, RDI, RDX, RSI, RSP, SS, Mem
from trapline.devices import lapic

from . import layout, unlock
from .firmware_entry import CODE32_AT, CODE64, CODE64_AT, DATA, DESCRIPTORS, GDT_AT, trampoline

_START_AT: Final = 0x1000
"""Where in its two pages the code for real mode is, which a startup IPI leads to."""
VECTOR: Final = layout.JOIN_RAM + _START_AT >> 12
_LAPIC_ID: Final = lapic.BASE + 0x20


def pages(base: int, monitor: int) -> bytes:
    """Return the two pages. `base` is the address of the shared memory, `monitor` that of what they lead to."""
    blob = bytearray(layout.JOIN_SIZE)
    parts = {
        GDT_AT: b"".join(one.to_bytes(8, "little") for one in DESCRIPTORS),
        CODE32_AT: _protected_mode().assemble(layout.JOIN_RAM + CODE32_AT),
        CODE64_AT: _long_mode(base, monitor).assemble(layout.JOIN_RAM + CODE64_AT),
        _START_AT: trampoline(0, layout.JOIN_RAM),
    }
    for at, part in parts.items():
        blob[at : at + len(part)] = part
    assert len(parts[CODE32_AT]) <= CODE64_AT - CODE32_AT, "the code for protected mode is too long"
    assert len(parts[CODE64_AT]) <= _START_AT - CODE64_AT, "the code for long mode is too long"
    return bytes(blob)


def _protected_mode() -> Assembler:
    """Enter long mode. EDX: the CPU's signature, as RESET left it."""
    code = Assembler(32)
    code.mov(EBP, EDX)
    code.mov(EAX, DATA)
    for segment in (DS, ES, SS):
        code.mov(segment, AX)
    code.mov(EAX, CR4.PAE)
    code.mov(operands.CR4, EAX)
    code.mov(EAX, layout.ENTRY_TABLES_RAM)
    code.mov(operands.CR3, EAX)
    code.mov(ECX, EFER_MSR)
    code.rdmsr()
    code.or_(EAX, EFER.LME)
    code.wrmsr()
    code.mov(EAX, operands.CR0)
    code.and_(EAX, 0xFFFF_FFFF & ~(CR0.CD | CR0.NW))
    code.or_(EAX, CR0.PG)
    code.mov(operands.CR0, EAX)
    code.far_jump(CODE64, layout.JOIN_RAM + CODE64_AT)
    return code


def _long_mode(base: int, monitor: int) -> Assembler:
    """Take the monitor's page tables, get SVM, take a block, and jump to the monitor with its mailbox in RSP.

    EBP: the CPU's signature, RBX then the address of the shared memory.
    """
    code = Assembler(64)
    code.mov(RAX, base + layout.PML4_AT)
    code.mov(operands.CR3, RAX)
    code.mov(RBX, base)
    _take_turn(code, "svm")
    unlock.set_svme(code)
    code.mov(RDI, _LAPIC_ID)
    code.mov(ESI, Mem(RDI))
    code.shr(ESI, 24)
    code.mov(Mem(RBX, _mailbox("present"), index=RSI, scale=4, size=32), 1)
    code.inc(Mem(RBX, _mailbox("registered"), size=32))
    _end_turn(code)
    code.label("others")
    code.pause()
    code.mov(EAX, Mem(RBX, _mailbox("registered")))
    code.cmp(EAX, Mem(RBX, _mailbox("others")))
    code.jb("others")
    # The blocks have the order of the ids, as QEMU's numbers of CPUs do.
    code.mov(EDX, ESI)
    code.mov(ECX, 0)
    code.label("lower")
    code.dec(EDX)
    code.je("counted")
    code.add(ECX, Mem(RBX, _mailbox("present"), index=RDX, scale=4))
    code.jmp("lower")
    code.label("counted")
    code.shl(RCX, layout.BLOCK_SHIFT)
    code.lea(RSP, Mem(RBX, layout.FIRST_BLOCK + layout.MAILBOX_AT, index=RCX))
    code.mov(Mem(RSP, offset_of(layout.Mailbox, "apic_id")), ESI)
    _take_turn(code, "block")
    code.mov(RAX, monitor)
    code.jmp(RAX)
    return code


def _mailbox(field: str) -> int:
    """Return where a field of the boot CPU's mailbox is, from the beginning of the shared memory."""
    return layout.MAILBOX_AT + offset_of(layout.Mailbox, field)


def _take_turn(code: Assembler, label: str) -> None:
    code.label(label)
    code.pause()
    code.mov(EAX, 1)
    code.xchg(Mem(RBX, _mailbox("joining")), EAX)
    code.cmp(EAX, 0)
    code.jne(label)


def _end_turn(code: Assembler) -> None:
    code.mov(Mem(RBX, _mailbox("joining"), size=32), 0)
