"""The monitor's entry: from the firmware's jump to the first hand-over to Python."""

from typing import Final

from trapline.arch.layout import offset_of
from trapline.arch.msr import EFER as EFER_MSR
from trapline.arch.msr import VM_HSAVE_PA
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, DX, EAX, EBP, ECX, EDI, ESI, R8, R9, RAX, RBX, RCX, RDI, RDX, RSP, Mem
from trapline.devices import lapic
from trapline.devices.interrupt_command import OTHERS, STARTUP
from trapline.processors.qemu import join, layout, pci
from trapline.processors.qemu.firmware_entry import swap
from trapline.processors.qemu.layout import Owner

from .places import mailbox, place, table

ENTRY: Final = "entry"
JOIN: Final = "join"
_ICR: Final = lapic.BASE + lapic.COMMAND
_START: Final = OTHERS << 18 | 1 << 14 | STARTUP << 8 | join.VECTOR
"""A startup IPI to all but the sender (APM vol. 2, 16.5)."""


def enter(code: Assembler, *, several: bool) -> None:
    """The firmware jumps here with the monitor's page tables, this address in RAX and the CPU's signature in ESI."""
    code.label(ENTRY)
    code.lea(RSP, Mem(RAX, layout.MAILBOX_AT - layout.CODE_AT))
    code.mov(mailbox("signature"), ESI)
    _take_block(code)
    if several:
        _start_others(code)
    _open_shadow(code)
    code.mov(DX, pci.CONFIG_ADDRESS)  # where a reset leaves it, and not at our device
    code.mov(EAX, 0)
    code.out(DX, EAX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.mov(mailbox("reset", 32), 1)
    code.jmp("ask")


def join_monitor(code: Assembler) -> None:
    """Another CPU comes here (`join`), with the shared memory's address in RBX and its signature in EBP."""
    code.label(JOIN)
    code.mov(mailbox("signature"), EBP)
    _take_block(code)
    code.lea(RAX, place(layout.VMCB_AT))
    code.mov(ECX, Owner.HOST.value)
    code.xchg(mailbox("owner"), ECX)
    code.inc(Mem(RBX, layout.MAILBOX_AT + offset_of(layout.Mailbox, "joined"), size=32))
    code.mov(Mem(RBX, layout.MAILBOX_AT + offset_of(layout.Mailbox, "joining"), size=32), 0)
    code.jmp("asleep")


def _take_block(code: Assembler) -> None:
    """Use what this CPU has of the shared memory."""
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


def _start_others(code: Assembler) -> None:
    """Let the other CPUs come into the monitor (`join`), if there are any, and wait for them."""
    parts = (
        (layout.ENTRY_TABLES_RAM, layout.ENTRY_TABLES_AT, layout.ENTRY_TABLES_SIZE),
        (layout.JOIN_RAM, layout.JOIN_AT, layout.JOIN_SIZE),
    )
    code.cmp(mailbox("others", 32), 0)
    code.je("alone")
    for field in ("joined", "joining", "registered"):
        code.mov(mailbox(field, 32), 0)
    for turn in ("there", "back"):
        for ram, at, size in parts:
            code.mov(R8, ram)
            code.lea(R9, place(at))
            code.mov(RCX, size // 8)
            swap(code, R8, R9, RCX, RAX, label=f"{turn} {ram:#x}")
        if turn == "there":
            code.mov(EDI, _ICR)
            code.mov(Mem(RDI, size=32), _START)
            code.label("join wait")
            code.pause()
            code.mov(ECX, mailbox("joined"))
            code.cmp(ECX, mailbox("others"))
            code.jb("join wait")
    code.label("alone")


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
