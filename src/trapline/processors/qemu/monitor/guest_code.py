"""Reads the guest's instruction, through the guest's page tables, and tells what its exit does not (`quirks_tcg`).

The monitor has all memory below its own at its own address. Only RAM below 4 GiB is read; what is elsewhere, or would
take more than a few instructions, is left to the host.
"""

from typing import Final

from trapline.arch import paging
from trapline.arch.bits import M16, M32
from trapline.arch.descriptors import Attribute
from trapline.arch.events import VALID, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import DL, DX, EBX, ECX, EDX, ESI, RBX, RCX, RDI, RDX, RSI, Mem

from .places import PLAN_SHIFT, mailbox, vmcb

_INT_N: Final = 0xCD
_INT_N_LENGTH: Final = 2
_GROUP_7: Final = 0x010F
"""The first two bytes of the SVM instructions; a third, from VMRUN's to INVLPGA's, follows (APM vol. 3, appendix A)."""
_FIRST_SVM: Final = 0xD8
_SVM: Final = 8
_PREFIXES: Final = ((0xE7, 0x26), (0xFC, 0x64), (0xF0, 0x40), (0xFC, 0xF0))
"""(mask, value): the bytes that may be prefixes, REX among them, and some that are not."""
_READ: Final = 8
"""Bytes of the instruction that are read."""
_MOST_PREFIXES: Final = _READ - 3

_ROOT_PAE: Final = 0xFFFF_FFE0
"""Of CR3, without long mode (APM 5.2.1)."""
_FRAME_32: Final = M32 & ~paging.PAGE_OFFSET
_SHIFT_4M: Final = 22
_HIGH_BITS_4M: Final = 0x1F_E000
"""Of the entry of a 4 MiB page: bits 39:32 of its address (APM 5.2.2)."""


def tell_instruction(code: Assembler, *, several: bool) -> None:
    """A #GP with code 0, and INT n, INT3 or INTO: resume the guest where nobody needs to see it.

    INT n: inject it, for the intercept is there for INT3 and INTO. #GP: it is the guest's own unless an SVM instruction
    raised it, for which the guest must see #UD.
    """
    code.label("int n")
    code.test(vmcb("control.exit_int_info", 32), VALID)
    code.jne("slow")
    code.cmp(mailbox("soft_arm", 32), 0)
    code.je("slow")
    code.jmp("tell")

    code.label("gp")
    code.mov(vmcb("control.exit_info_2", 64), 0)  # TCG writes an address that is not canonical, as of a #PF
    code.cmp(vmcb("control.exit_info_1", 32), 0)
    code.jne("sorted")
    code.cmp(mailbox("ram_low", 64), 0)
    code.je("slow")

    code.label("tell")
    _find_linear_address(code)
    code.mov(mailbox("gprs.rsi"), RSI)
    code.mov(mailbox("gprs.rdi"), RDI)
    _translate(code)
    code.label("translated")
    _check_ram(code)
    code.mov(RDX, Mem(RSI))
    if several:
        code.cmp(vmcb("control.exit_code", 32), ExitCode.NPF)
        code.je("apic store")
    code.mov(RSI, mailbox("gprs.rsi"))
    code.mov(RDI, mailbox("gprs.rdi"))
    code.cmp(vmcb("control.exit_code", 32), ExitCode.SWINT)
    code.je("software interrupt")
    _sort_protection_fault(code)
    _inject_int_n(code)

    code.label("untold")
    code.mov(RSI, mailbox("gprs.rsi"))
    code.mov(RDI, mailbox("gprs.rdi"))
    code.jmp("slow")


def _find_linear_address(code: Assembler) -> None:
    """Put the linear address of the instruction into RBX."""
    code.mov(RBX, vmcb("save.rip"))
    code.test(vmcb("save.efer", 32), EFER.LMA)
    code.je("segmented")
    code.test(vmcb("save.cs.attributes", 16), Attribute.L)
    code.jne("linear")
    code.label("segmented")
    code.add(RBX, vmcb("save.cs.base"))
    code.mov(EBX, EBX)
    code.label("linear")
    code.mov(EDX, EBX)
    code.and_(EDX, paging.PAGE_OFFSET)
    code.cmp(EDX, paging.PAGE - _READ)
    code.ja("slow")


def _translate(code: Assembler) -> None:
    """Put the physical address of RBX into RSI. The CPU has just fetched from there, so rights need no check."""
    code.mov(RSI, RBX)
    code.test(vmcb("save.cr0", 32), CR0.PG)
    code.je("translated")
    code.mov(RSI, vmcb("save.cr3"))
    code.test(vmcb("save.cr4", 32), CR4.PAE)
    code.je("two levels")
    code.mov(RDI, paging.ADDRESS)
    code.test(vmcb("save.efer", 32), EFER.LMA)
    code.jne("four levels")
    code.and_(ESI, _ROOT_PAE)
    code.jmp("level 3")
    code.label("four levels")
    code.test(vmcb("save.cr4", 32), CR4.LA57)
    code.jne("untold")
    code.and_(RSI, RDI)
    for level in (4, 3, 2, 1):
        if level == 3:
            code.label("level 3")
        _load_entry(code, paging.page_size(level).bit_length() - 1, bits=64)
        if level in (3, 2):
            code.test(ESI, paging.PS)
            code.jne(f"large {level}")
        code.and_(RSI, RDI)
    _add_offset(code, paging.page_size(1))
    for level in (3, 2):
        shift = paging.page_size(level).bit_length() - 1
        code.label(f"large {level}")
        code.and_(RSI, RDI)
        code.shr(RSI, shift)
        code.shl(RSI, shift)
        _add_offset(code, 1 << shift)

    code.label("two levels")
    code.and_(ESI, _FRAME_32)
    _load_entry(code, _SHIFT_4M, bits=32)
    code.test(ESI, paging.PS)
    code.je("small page")
    code.test(vmcb("save.cr4", 32), CR4.PSE)
    code.je("small page")
    code.test(ESI, _HIGH_BITS_4M)
    code.jne("untold")
    code.and_(ESI, M32 & -1 << _SHIFT_4M)
    _add_offset(code, 1 << _SHIFT_4M)
    code.label("small page")
    code.and_(ESI, _FRAME_32)
    _load_entry(code, paging.PAGE_SHIFT, bits=32)
    code.and_(ESI, _FRAME_32)
    code.mov(EDX, EBX)
    code.and_(EDX, paging.PAGE_OFFSET)
    code.add(RSI, RDX)


def _check_ram(code: Assembler) -> None:
    """RSI must be an address in RAM below 4 GiB."""
    code.cmp(RSI, mailbox("ram_low"))
    code.jae("untold")


def _load_entry(code: Assembler, shift: int, *, bits: int) -> None:
    """Load the entry of the table at RSI that maps RBX into RSI."""
    size = bits // 8
    code.mov(RDX, RBX)
    code.shr(RDX, shift)
    code.and_(EDX, paging.PAGE // size - 1)
    _check_ram(code)
    code.mov(RSI if bits == 64 else ESI, Mem(RSI, index=RDX, scale=size))
    code.test(ESI, paging.P)
    code.je("untold")


def _add_offset(code: Assembler, page: int) -> None:
    """Add to RSI what a page of this size keeps of RBX; it is the physical address then."""
    code.mov(EDX, EBX)
    code.and_(EDX, page - 1)
    code.add(RSI, RDX)
    code.jmp("translated")


def _sort_protection_fault(code: Assembler) -> None:
    """RDX begins with the instruction of a #GP."""
    code.mov(ECX, _MOST_PREFIXES + 1)
    code.label("byte")
    code.cmp(DX, _GROUP_7)
    code.je("group 7")
    for mask, value in _PREFIXES:
        code.mov(EBX, EDX)
        code.and_(EBX, mask)
        code.cmp(EBX, value)
        code.je("prefix")
    code.label("guest's")
    code.mov(ECX, Vector.GP.value << PLAN_SHIFT)
    code.jmp("sorted")
    code.label("prefix")
    code.shr(RDX, 8)
    code.dec(ECX)
    code.jne("byte")
    code.jmp("slow")
    code.label("group 7")
    code.shr(RDX, 16)
    code.sub(DL, _FIRST_SVM)
    code.cmp(DL, _SVM)
    code.jae("guest's")
    code.jmp("slow")


def _inject_int_n(code: Assembler) -> None:
    """RDX begins with INT n, else it is the host's. As `SoftwareInterrupts.inject`, but for RIP that wraps."""
    code.label("software interrupt")
    code.cmp(DL, _INT_N)
    code.jne("slow")
    code.mov(RCX, vmcb("save.rip"))
    code.mov(EBX, ECX)
    code.and_(EBX, M16)
    code.cmp(EBX, M16 - _INT_N_LENGTH)
    code.ja("slow")
    code.mov(mailbox("soft_rip"), RCX)
    code.add(RCX, _INT_N_LENGTH)
    code.mov(vmcb("save.rip"), RCX)
    code.shr(EDX, 8)
    code.and_(EDX, 0xFF)
    code.or_(EDX, VALID | EventType.SOFT << 8)
    code.mov(mailbox("injected"), EDX)
    code.mov(vmcb("control.event_inj"), RDX)
    code.mov(EDX, mailbox("soft_arm"))
    code.or_(vmcb("control.intercept_exceptions"), EDX)
    code.mov(vmcb("control.interrupt_shadow", 32), 0)
    code.jmp("restore")
