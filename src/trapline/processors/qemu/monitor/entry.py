"""The monitor's entry: from the firmware's jump to the first hand-over to Python."""

from typing import Final

from trapline.arch.msr import EFER as EFER_MSR
from trapline.arch.msr import VM_HSAVE_PA
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, DX, EAX, ECX, ESI, RAX, RDX, RSP, Mem
from trapline.processors.qemu import layout, pci

from .places import mailbox, place, table

ENTRY: Final = "entry"


def enter(code: Assembler) -> None:
    """The firmware jumps here with the monitor's page tables, this address in RAX and the CPU's signature in ESI."""
    code.label(ENTRY)
    code.lea(RSP, Mem(RAX, layout.MAILBOX_AT - layout.CODE_AT))
    code.mov(mailbox("signature"), ESI)
    code.lgdt(table("gdt_operand"))
    code.lidt(table("idt_operand"))
    code.mov(ECX, VM_HSAVE_PA)
    code.lea(RAX, place(layout.HSAVE_AT))
    code.mov(RDX, RAX)
    code.shr(RDX, 32)
    code.wrmsr()
    code.mov(ECX, EFER_MSR)
    code.rdmsr()
    code.mov(mailbox("efer"), EAX)
    _open_shadow(code)
    code.mov(DX, pci.CONFIG_ADDRESS)  # where a reset leaves it, and not at our device
    code.mov(EAX, 0)
    code.out(DX, EAX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.mov(mailbox("reset", 32), 1)
    code.jmp("ask")


def _open_shadow(code: Assembler) -> None:
    """Map RAM at 0xC0000-0xFFFFF, as the BIOS itself would, when the machine is switched on.

    A reset keeps what a BIOS chose: warm boot and resume from S3 depend on it.
    """
    code.cmp(mailbox("open_shadow", 32), 0)
    code.je("opened")
    code.mov(DX, pci.CONFIG_ADDRESS)
    code.mov(EAX, pci.address(pci.HOST_BRIDGE, 0))
    code.out(DX, EAX)
    code.mov(DX, pci.CONFIG_DATA)
    code.in_(EAX, DX)
    code.shr(EAX, 16)
    for device in pci.SHADOW_REGISTERS:
        code.cmp(EAX, device)
        code.je(f"bridge {device:#x}")
    code.jmp("opened")
    for device, first in pci.SHADOW_REGISTERS.items():
        code.label(f"bridge {device:#x}")
        for register, value in enumerate(pci.SHADOW_OPEN, first):
            code.mov(DX, pci.CONFIG_ADDRESS)
            code.mov(EAX, pci.address(pci.HOST_BRIDGE, register & ~3))
            code.out(DX, EAX)
            code.mov(DX, pci.CONFIG_DATA + (register & 3))
            code.mov(EAX, value)
            code.out(DX, AL)
        code.jmp("opened")
    code.label("opened")
