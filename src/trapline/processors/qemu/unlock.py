"""Sets EFER.SVME on a CPU whose CPUID shows no SVM, so that no CPUID needs to be intercepted.

WRMSR consults CPUID, RSM does not: the entry sends itself an SMI, sets the bit in the saved EFER and returns.
"""

from typing import Final

from trapline.arch.msr import VM_HSAVE_PA
from trapline.arch.registers import EFER
from trapline.asm.assembler import Assembler
from trapline.asm.operands import CS, EAX, ECX, EDX, RAX, RBX, RCX, RDI, RSI, Mem
from trapline.devices import lapic

from . import layout

_APIC_ICR: Final = lapic.BASE + lapic.COMMAND
"""Interrupt command register of the local APIC, its high half 0x10 further (APM 16.5)."""
_ICR_SMI_TO_SELF: Final = 1 << 18 | 2 << 8
_SMM_ENTRY: Final = 0x38000
"""SMBASE after reset, 0x30000, plus 0x8000 (APM 10.2.5)."""
_SMM_SAVED_EFER: Final = 0xFED0
"""Offset of EFER in the save state, from SMBASE (APM 10.2.3)."""
_SMM_SAVE_AREA: Final = 0x3FC00
_SMM_SAVE_SIZE: Final = 0x400


def make_init_a_reset(code: Assembler, *, no_idt: int) -> None:
    """Shut the CPU down, which resets the machine, where it was not reset but got an INIT.

    INIT keeps SMBASE (APM vol. 2, 14.1.3), and the handler there is the guest's: no SMI may be taken outside the guest.
    It keeps VM_HSAVE_PA too, which is 0 until the monitor writes it. `no_idt` is the address of the operand for a LIDT
    after which no exception can be delivered.
    """
    code.mov(ECX, VM_HSAVE_PA)
    code.rdmsr()
    code.or_(EAX, EDX)
    code.je("was reset")
    code.lidt(Mem(None, no_idt))
    code.int3()
    code.label("was reset")


def set_svme(code: Assembler) -> None:
    """Write the code for 64-bit mode. RBX: the address of the shared memory.

    The memory that this passes through is put back as it was.
    """
    moves = (
        (Mem(None, _SMM_ENTRY), 1, Mem(RBX, layout.SCRATCH_AT)),
        (Mem(None, _SMM_SAVE_AREA), _SMM_SAVE_SIZE // 8, Mem(RBX, layout.SCRATCH_AT + 8)),
    )
    handler = Assembler(16)
    handler.or_(Mem(None, _SMM_SAVED_EFER + 1, segment=CS, size=8), EFER.SVME >> 8)
    handler.rsm()
    for source, count, target in moves:
        _move(code, source, target, count)
    code.mov(RDI, _SMM_ENTRY)
    code.mov(RAX, int.from_bytes(handler.assemble(0x8000), "little"))
    code.mov(Mem(RDI), RAX)
    code.mov(RDI, _APIC_ICR)
    code.mov(Mem(RDI, 0x10, size=32), 0)
    code.mov(Mem(RDI, size=32), _ICR_SMI_TO_SELF)
    code.pause()
    code.pause()
    for source, count, target in moves:
        _move(code, target, source, count)


def _move(code: Assembler, source: Mem, target: Mem, quadwords: int) -> None:
    again = f"move {source.displacement:#x}"
    code.lea(RSI, source)
    code.lea(RDI, target)
    code.mov(RCX, quadwords)
    code.label(again)
    code.mov(RAX, Mem(RSI, -8, index=RCX, scale=8))
    code.mov(Mem(RDI, -8, index=RCX, scale=8), RAX)
    code.dec(RCX)
    code.jne(again)
