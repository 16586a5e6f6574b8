"""The monitor's half of the handshake with the host: hand over an exit, wait, execute the command."""

from typing import Final

from trapline.arch.registers import CR4
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, DX, EAX, EBX, ECX, EDX, RAX, RCX, RDX, Mem
from trapline.processors.qemu import layout
from trapline.processors.qemu.layout import Command, Owner

from .places import SAVED_LATER, mailbox, place, table

_CR4: Final = operands.CR4
NMI_HANDLER: Final = "nmi"
ABSORB: Final = "absorb"
RDMSR: Final = "rdmsr"
WRMSR: Final = "wrmsr"
"""What can be run aside, by its label; it leaves by VMMCALL."""


def ask(code: Assembler) -> None:
    """Hand the exit to the host and wait until it hands a command back."""
    code.label("slow")
    for name, register in SAVED_LATER:
        code.mov(mailbox(f"gprs.{name}"), register)
    code.vmsave()
    code.label("tsc")
    code.rdtsc()
    code.shl(RDX, 32)
    code.or_(RDX, RAX)
    code.mov(mailbox("tsc"), RDX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.label("ask")
    code.mov(ECX, Owner.HOST.value)
    code.xchg(mailbox("owner"), ECX)  # locked: the owner is written before `attended` is read
    code.cmp(mailbox("attended", 32), 0)
    code.jne("wait")
    code.mov(DX, layout.DOORBELL_PORT)
    code.out(DX, AL)
    code.label("wait")
    code.pause()
    code.cmp(mailbox("owner", 32), Owner.HOST.value)
    code.je("wait")


def dispatch_command(code: Assembler, *, several: bool) -> None:
    """Execute `Mailbox.command`."""
    code.label("command")
    code.mov(ECX, mailbox("command"))
    code.cmp(ECX, Command.RESUME.value)
    code.je("resume")
    code.cmp(ECX, Command.LOAD_AND_RESUME.value)
    code.je("load")
    code.cmp(ECX, Command.ASIDE.value)
    code.je("aside")
    code.cmp(ECX, Command.CPUID.value)
    code.je("cpuid")
    code.cmp(ECX, Command.OUT.value)
    code.je("out")
    code.cmp(ECX, Command.IN.value)
    code.je("in")
    code.cmp(ECX, Command.EXIT.value)
    code.je("exit")
    code.cmp(ECX, Command.NOTE_TSC.value)
    code.je("tsc")
    code.cmp(ECX, Command.FXSAVE.value)
    code.je("fxsave")
    code.cmp(ECX, Command.FXRSTOR.value)
    code.je("fxrstor")
    if several:
        for command, label in ((Command.STORE, "store"), (Command.LOAD, "load word"), (Command.SLEEP, "sleep")):
            code.cmp(ECX, command.value)
            code.je(label)
    # A shutdown: with no IDT no exception can be delivered (APM 15.7.3 knows no way to inject one).
    code.lidt(table("null_idt_operand"))
    code.int3()

    _run_aside(code)

    code.label("cpuid")
    code.mov(EAX, mailbox("gprs.rax"))
    code.mov(ECX, mailbox("gprs.rcx"))
    code.cpuid()
    for name, register in (("rax", EAX), ("rbx", EBX), ("rcx", ECX), ("rdx", EDX)):
        code.mov(mailbox(f"gprs.{name}"), register)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jmp("ask")

    _access_port(code)
    _access_fpu(code)

    code.label("exit")
    code.mov(EDX, mailbox("port"))
    code.mov(EAX, mailbox("value"))
    code.out(DX, AL)
    code.label("ended")
    code.pause()
    code.jmp("ended")

    code.label("load")
    code.vmload()
    code.label("resume")
    for name, register in SAVED_LATER:
        code.mov(register, mailbox(f"gprs.{name}"))
    code.jmp("restore")


def access_memory(code: Assembler) -> None:
    """Write or read 4 bytes of physical memory."""
    code.label("store")
    code.mov(RDX, mailbox("address"))
    code.mov(ECX, mailbox("word"))
    code.mov(Mem(RDX), ECX)
    code.jmp("ask")
    code.label("load word")
    code.mov(RDX, mailbox("address"))
    code.mov(ECX, Mem(RDX))
    code.mov(mailbox("word"), ECX)
    code.jmp("ask")


def sleep(code: Assembler) -> None:
    """Halt until the host has handed a command back and a startup IPI comes: it does nothing else here (`join`).

    GIF is clear, so no other event wakes the CPU. One that comes between the comparison and HLT does not either.
    """
    code.label("sleep")
    code.mov(ECX, Owner.HOST.value)
    code.xchg(mailbox("owner"), ECX)
    code.label("asleep")
    code.cmp(mailbox("owner", 32), Owner.HOST.value)
    code.jne("awake")
    code.hlt()
    code.jmp("asleep")
    code.label("awake")
    code.mov(mailbox("awake", 32), 1)
    code.jmp("command")


def _run_aside(code: Assembler) -> None:
    """Enter a guest that executes one of the instructions below."""
    code.label("aside")
    code.mov(RCX, mailbox("gprs.rcx"))
    code.mov(RDX, mailbox("gprs.rdx"))
    code.lea(RAX, place(layout.ASIDE_AT))
    code.vmrun()
    code.mov(mailbox("gprs.rdx"), RDX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jmp("ask")

    code.label(ABSORB)  # with GIF set the NMI that is pending comes at once
    code.nop()
    code.vmmcall()
    code.label(NMI_HANDLER)
    code.iretq()
    code.label(RDMSR)
    code.rdmsr()
    code.vmmcall()
    code.label(WRMSR)
    code.wrmsr()
    code.vmmcall()


def _access_fpu(code: Assembler) -> None:
    """Store or load the guest's x87, MMX and SSE registers, which the monitor does not use.

    Of the latter FXSAVE and FXRSTOR know with CR4.OSFXSR only (APM vol. 2, 3.1.3).
    """
    for name in ("fxsave", "fxrstor"):
        code.label(name)
        code.mov(RDX, _CR4)
        code.mov(RCX, RDX)
        code.or_(ECX, CR4.OSFXSR)
        code.mov(_CR4, RCX)
        getattr(code, name)(mailbox("fpu"))
        code.mov(_CR4, RDX)
        code.jmp("ask")


def _access_port(code: Assembler) -> None:
    """Execute IN or OUT in the guest's place."""
    parts = {1: AL, 2: AX, 4: EAX}
    for name in ("out", "in"):
        code.label(name)
        code.mov(EDX, mailbox("port"))
        code.mov(EAX, mailbox("value"))
        code.mov(ECX, mailbox("width"))
        for size in parts:
            code.cmp(ECX, size)
            code.je(f"{name} {size}")
        for size, part in parts.items():
            code.label(f"{name} {size}")
            if name == "out":
                code.out(DX, part)
            else:
                code.in_(part, DX)
            code.jmp("accessed")
    code.label("accessed")
    code.mov(mailbox("value"), EAX)
    code.lea(RAX, place(layout.VMCB_AT))
    code.jmp("ask")
