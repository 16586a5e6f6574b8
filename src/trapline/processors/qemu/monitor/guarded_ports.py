"""The guarded ports that systems use all the time, without Python: the plain IN and OUT, without a single step.

They are the PCI configuration address (`guard`), the two of firmware configuration DMA (`fw_cfg_dma`), and the keyboard
controller's command port, but for the commands that reset (`ports`).
"""

from typing import Final

from trapline.arch import ioio
from trapline.arch.layout import offset_of
from trapline.arch.registers import RFLAGS
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, CL, DX, EAX, EBX, ECX, EDX, RAX, RBX, RCX, RDX, Mem
from trapline.devices.keyboard import COMMAND, PULSE, PULSE_MASK
from trapline.processors.qemu import fw_cfg_dma, layout, pci
from trapline.processors.qemu.dma_descriptor import DmaDescriptor

from .places import mailbox, place, vmcb

_A20: Final = 1 << 20
"""The bit that the A20 gate masks for the monitor, and not for QEMU itself."""
_SHADOWED: Final = range(0xA_0000, 0x10_0000)
"""Where RAM may be hidden by other memory."""


def guard_ports(code: Assembler) -> None:
    """Execute an OUT for the guest, or leave it to the host."""
    code.label("port")
    code.test(vmcb("save.rflags", 32), RFLAGS.TF)
    code.jne("slow")
    code.mov(EDX, vmcb("control.exit_info_1"))
    code.and_(EDX, ioio.PORT | ioio.FORM)
    for port, name in ((pci.CONFIG_ADDRESS, "configure"), (fw_cfg_dma.HIGH, "dma high"), (fw_cfg_dma.LOW, "dma low")):
        code.cmp(EDX, port << ioio.PORT_SHIFT | ioio.DWORD)
        code.je(name)
    code.cmp(EDX, pci.CONFIG_ADDRESS << ioio.PORT_SHIFT | ioio.DWORD | ioio.IN)
    code.je("configured")
    code.cmp(EDX, COMMAND << ioio.PORT_SHIFT | ioio.BYTE | ioio.IN)
    code.je("keyboard status")
    code.cmp(EDX, COMMAND << ioio.PORT_SHIFT | ioio.BYTE)
    code.je("keyboard command")
    code.jmp("slow")
    _configure(code)
    _keyboard(code)
    _keep_high_half(code)
    _start_dma(code)


def _configure(code: Assembler) -> None:
    """Write or read the configuration address; one that names our device goes out without its enable bit."""
    code.label("configure")
    code.mov(EDX, vmcb("save.rax"))
    code.mov(mailbox("config_address"), EDX)
    code.mov(EBX, EDX)
    code.and_(EBX, pci.DEVICE_BITS)
    code.cmp(EBX, pci.address(pci.MONITOR_DEVICE, 0))
    code.jne("allowed")
    code.and_(EDX, 0xFFFF_FFFF & ~pci.ENABLE)
    code.label("allowed")
    code.mov(EAX, EDX)
    code.mov(DX, pci.CONFIG_ADDRESS)
    code.out(DX, EAX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jmp("written")
    code.label("configured")
    code.mov(DX, pci.CONFIG_ADDRESS)
    code.in_(EAX, DX)
    code.mov(ECX, EAX)
    code.mov(EBX, mailbox("config_address"))
    code.or_(EBX, pci.ENABLE)
    code.or_(EAX, pci.ENABLE)
    code.cmp(EAX, EBX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jne("not kept")  # it was changed since
    code.mov(ECX, mailbox("config_address"))
    code.label("not kept")
    code.mov(vmcb("save.rax"), RCX)
    code.label("written")
    code.mov(RDX, vmcb("control.exit_info_2"))
    code.mov(vmcb("save.rip"), RDX)
    code.and_(vmcb("save.rflags", 32), 0xFFFF_FFFF & ~RFLAGS.RF)
    code.mov(vmcb("control.interrupt_shadow", 32), 0)
    code.mov(mailbox("injected", 32), 0)
    code.jmp("restore")


def _keyboard(code: Assembler) -> None:
    """Read the status, or write a command that does not reset."""
    code.label("keyboard status")
    code.mov(DX, COMMAND)
    code.in_(AL, DX)
    code.mov(ECX, EAX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.mov(vmcb("save.rax", 8), CL)
    code.jmp("written")
    code.label("keyboard command")
    code.mov(ECX, vmcb("save.rax"))
    code.mov(EDX, ECX)
    code.and_(EDX, PULSE_MASK)
    code.cmp(EDX, PULSE)
    code.je("slow")
    code.mov(EAX, ECX)
    code.mov(DX, COMMAND)
    code.out(DX, AL)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jmp("written")


def _keep_high_half(code: Assembler) -> None:
    code.label("dma high")
    code.mov(EDX, vmcb("save.rax"))
    code.mov(mailbox("dma_high"), EDX)
    code.jmp("written")


def _start_dma(code: Assembler) -> None:
    """Copy the descriptor, check it, and let QEMU do the transfer.

    Python does what a descriptor needs that is not in RAM below 4 GiB, where the monitor can read it, one that leads to
    the shared memory or beyond, and one that takes long. RAX: the VMCB, which is in the shared memory.
    """
    code.label("dma low")
    code.cmp(mailbox("dma_high", 32), 0)
    code.jne("slow")
    code.mov(EDX, vmcb("save.rax"))
    code.bswap(EDX)
    code.lea(RBX, Mem(RDX, fw_cfg_dma.SIZE))
    code.cmp(RBX, mailbox("ram_low"))
    code.ja("slow")
    code.or_(EBX, EDX)
    code.test(EBX, _A20)
    code.jne("slow")
    code.mov(EBX, EDX)
    code.sub(EBX, _SHADOWED.start - fw_cfg_dma.SIZE)
    code.cmp(EBX, len(_SHADOWED) + fw_cfg_dma.SIZE)
    code.jb("slow")
    for field, register in (("control", EBX), ("length", ECX), ("address", RBX)):
        code.mov(register, Mem(RDX, offset_of(DmaDescriptor, field)))
        code.mov(mailbox(f"dma.{field}"), register)
    code.bswap(RBX)
    code.bswap(ECX)
    code.cmp(ECX, fw_cfg_dma.PART)
    code.ja("slow")
    code.add(RCX, RBX)
    code.jb("slow")
    code.mov(RBX, RAX)
    code.and_(RBX, -layout.LARGEST)
    code.cmp(RCX, RBX)
    code.ja("slow")
    code.mov(ECX, EDX)
    code.lea(RBX, place(layout.DMA_AT))
    code.mov(RAX, RBX)
    code.shr(RAX, 32)
    code.bswap(EAX)
    code.mov(DX, fw_cfg_dma.HIGH)
    code.out(DX, EAX)
    code.mov(EAX, EBX)
    code.bswap(EAX)
    code.mov(DX, fw_cfg_dma.LOW)
    code.out(DX, EAX)
    code.mov(EDX, mailbox("dma.control"))
    code.mov(Mem(RCX), EDX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jmp("written")
