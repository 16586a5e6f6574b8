"""Writes to the local APIC by the usual instructions, without Python: MOV of a register or an immediate of 4 bytes.

They fault with several CPUs (`nested`). Commands that reset or start CPUs or send NMIs are left to the host, as are
other instructions, and 16-bit code (`apic`).
"""

from typing import Final

from trapline.arch import paging
from trapline.arch.descriptors import Attribute
from trapline.arch.events import VALID
from trapline.arch.layout import offset_of
from trapline.arch.registers import EFER, RFLAGS
from trapline.asm.assembler import Assembler
from trapline.asm.operands import DL, EBX, ECX, EDI, EDX, R8, R9, R10, R11, RBX, RCX, RDI, RDX, RSI, RSP, Mem
from trapline.devices import lapic
from trapline.devices.interrupt_command import INIT, NMI, STARTUP
from trapline.processors.qemu.layout import Mailbox

from .places import SAVED_LATER, mailbox, vmcb

_REX: Final = 0x40
_REX_W: Final = 1 << 3
_REX_R: Final = 1 << 2
_MOV_REGISTER: Final = 0x89
_MOV_IMMEDIATE: Final = 0xC7
_SIB: Final = 4
"""In the R/M field: another byte follows (APM vol. 3, 1.4)."""
_NO_BASE: Final = 5
"""In the R/M field, or in the base field: 4 bytes of displacement, if the mode field has none."""


def guard_apic(code: Assembler) -> None:
    """Execute a store in the guest's place; RSI, RDX and the rest then are as `guest_code.tell_instruction` says."""
    code.label("apic")
    code.test(vmcb("control.exit_int_info", 32), VALID)
    code.jne("slow")
    code.test(vmcb("save.rflags", 32), RFLAGS.TF)
    code.jne("slow")
    code.mov(RDX, vmcb("control.exit_info_2"))
    code.shr(RDX, paging.PAGE_SHIFT)
    code.cmp(EDX, lapic.BASE >> paging.PAGE_SHIFT)
    code.jne("slow")
    code.jmp("tell")

    code.label("apic store")
    _save_registers(code)
    _read_prefix(code)
    _measure(code)
    _find_value(code)
    code.mov(RDX, vmcb("control.exit_info_2"))
    code.mov(RBX, RDX)
    code.and_(EBX, 0xFF0)
    code.cmp(EBX, lapic.COMMAND)
    code.jne("apic write")
    code.mov(EBX, ECX)
    code.and_(EBX, 7 << 8)
    for mode in (INIT, STARTUP, NMI):
        code.cmp(EBX, mode << 8)
        code.je("apic slow")
    code.label("apic write")
    code.mov(Mem(RDX), ECX)
    _skip(code)

    code.label("apic slow")
    for name, register in SAVED_LATER:
        code.mov(register, mailbox(f"gprs.{name}"))
    code.jmp("slow")


def _save_registers(code: Assembler) -> None:
    """Put all general registers in the mailbox, in their order; RSI and RDI are there already."""
    for name, register in SAVED_LATER:
        if name not in ("rsi", "rdi"):
            code.mov(mailbox(f"gprs.{name}"), register)
    for name in ("rax", "rsp"):
        code.mov(R8, vmcb(f"save.{name}"))
        code.mov(mailbox(f"gprs.{name}"), R8)


def _read_prefix(code: Assembler) -> None:
    """R8: bytes of the prefix, R9: the high bit of the register's number, R11: whether it is 64-bit code."""
    for register in (R8, R9, R11):
        code.mov(register, 0)
    code.test(vmcb("save.efer", 32), EFER.LMA)
    code.je("apic legacy")
    code.test(vmcb("save.cs.attributes", 16), Attribute.L)
    code.je("apic legacy")
    code.inc(R11)
    code.mov(RCX, RDX)
    code.and_(ECX, 0xF0)
    code.cmp(ECX, _REX)
    code.jne("apic opcode")
    code.mov(RCX, RDX)
    code.test(ECX, _REX_W)
    code.jne("apic slow")
    code.and_(ECX, _REX_R)
    code.add(RCX, RCX)
    code.mov(R9, RCX)
    code.inc(R8)
    code.shr(RDX, 8)
    code.jmp("apic opcode")
    code.label("apic legacy")
    code.test(vmcb("save.cs.attributes", 16), Attribute.DB)
    code.je("apic slow")
    code.label("apic opcode")
    code.mov(R10, 0)
    code.cmp(DL, _MOV_REGISTER)
    code.je("apic form")
    code.cmp(DL, _MOV_IMMEDIATE)
    code.jne("apic slow")
    code.mov(R10, 4)


def _measure(code: Assembler) -> None:
    """R8: bytes of the instruction, RBX: the number of its register."""
    code.label("apic form")
    code.mov(RCX, RDX)
    code.shr(ECX, 8)
    code.mov(RBX, RCX)
    code.shr(EBX, 3)
    code.and_(EBX, 7)
    code.or_(RBX, R9)
    code.add(R8, 2)
    code.mov(RDI, RCX)
    code.and_(EDI, 7)
    code.cmp(EDI, _SIB)
    code.jne("apic base")
    code.inc(R8)
    code.mov(RDI, RCX)
    code.shr(EDI, 8)
    code.and_(EDI, 7)
    code.label("apic base")
    code.test(ECX, 0x80)
    code.jne("apic wide")
    code.test(ECX, 0x40)
    code.jne("apic narrow")
    code.cmp(EDI, _NO_BASE)
    code.jne("apic measured")
    code.label("apic wide")
    code.add(R8, 3)
    code.label("apic narrow")
    code.inc(R8)
    code.label("apic measured")
    code.add(R8, R10)


def _find_value(code: Assembler) -> None:
    """ECX: what is stored."""
    code.cmp(R10, 0)
    code.jne("apic immediate")
    code.mov(ECX, Mem(RSP, offset_of(Mailbox, "gprs"), index=RBX, scale=8))
    code.jmp("apic value")
    code.label("apic immediate")
    code.mov(RCX, RSI)
    code.and_(ECX, paging.PAGE_OFFSET)
    code.add(RCX, R8)
    code.cmp(ECX, paging.PAGE)
    code.ja("apic slow")
    code.mov(ECX, Mem(RSI, -4, index=R8))
    code.label("apic value")


def _skip(code: Assembler) -> None:
    """Go on after the instruction, of R8 bytes."""
    code.mov(RBX, vmcb("save.rip"))
    code.add(RBX, R8)
    code.cmp(R11, 0)
    code.jne("apic skipped")
    code.mov(EBX, EBX)
    code.label("apic skipped")
    code.mov(vmcb("save.rip"), RBX)
    code.and_(vmcb("save.rflags", 32), 0xFFFF_FFFF & ~RFLAGS.RF)
    code.mov(vmcb("control.interrupt_shadow", 32), 0)
    code.mov(mailbox("injected", 32), 0)
    code.jmp("resume")
