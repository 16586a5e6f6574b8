"""The monitor's machine code: VMRUN, look at the exit, forward or ask.

Every offset comes from the layouts in `arch` and `shared`; no number stands here twice. RAX holds the VMCB's address
and RSP the mailbox's whenever the monitor runs: VMRUN takes the one and #VMEXIT restores both (APM 15.5, 15.6).
"""

from typing import Final

from trapline.arch import ioio
from trapline.arch.events import VALID
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.layout import offset_of, size_of
from trapline.arch.msr import EFER as EFER_MSR
from trapline.arch.msr import VM_HSAVE_PA
from trapline.arch.registers import CR0, CR4, RFLAGS, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, CR3, DX, EAX, EBX, ECX, EDX, ESI, RAX, RBX, RCX, RDX, RSP, Mem, Reg
from trapline.machine.record import Record

from . import pci, shared
from .shared import Command, Mailbox, Policy, Tables, Turn, VectorPlan

_CR0: Final = operands.CR0
_CR4: Final = operands.CR4

ENTRY: Final = "entry"
NMI_HANDLER: Final = "nmi"

_PLAN: Final = size_of(VectorPlan)
_PLAN_SHIFT: Final = _PLAN.bit_length() - 1
_RECORD_SHIFT: Final = shared.RECORD_SIZE.bit_length() - 1
assert 1 << _PLAN_SHIFT == _PLAN, "plans are indexed by a shift"
assert 1 << _RECORD_SHIFT == shared.RECORD_SIZE, "records are indexed by a shift"

_FLUSHING_CR4: Final = CR4.PGE | CR4.PSE | CR4.SMEP | CR4.SMAP
"""Bits whose change makes a switch between guest and monitor more expensive; the monitor takes over the guest's."""

_COPIED: Final = (
    ("exit_int_info", "control.exit_int_info"),
    ("rip", "save.rip"),
    ("rsp", "save.rsp"),
    ("rflags", "save.rflags"),
    ("cr3", "save.cr3"),
    ("address", "control.exit_info_2"),
    ("cs_base", "save.cs.base"),
    ("cr0", "save.cr0"),
    ("cr4", "save.cr4"),
    ("efer", "save.efer"),
    ("dr6", "save.dr6"),
    ("cs", "save.cs.selector"),
    ("ss", "save.ss.selector"),
    ("cpl", "save.cpl"),
)
"""Fields of the record that are fields of the VMCB."""


def vmcb(path: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the VMCB."""
    return Mem(RAX, offset_of(Vmcb, path), size=size)


def mailbox(path: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the mailbox."""
    return Mem(RSP, offset_of(Mailbox, path), size=size)


def _plan(field: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the vector's plan; RCX holds vector * size of a plan."""
    return Mem(RSP, offset_of(Mailbox, "plans") + offset_of(VectorPlan, field), index=RCX, size=size)


def _table(field: str) -> Mem:
    return Mem(RSP, shared.TABLES_AT - shared.MAILBOX_AT + offset_of(Tables, field))


def _record(field: str) -> Mem:
    return Mem(RBX, offset_of(Record, field))


_SAVED_FIRST: Final = (("rcx", RCX), ("rdx", RDX), ("rbx", RBX))
"""The registers that the fast path uses."""
_SAVED_LATER: Final[tuple[tuple[str, Reg], ...]] = tuple(
    (name, getattr(operands, name.upper()))
    for name in ("rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
)
assert len(_SAVED_FIRST + _SAVED_LATER) + 2 == size_of(Gprs) // 8, "RAX and RSP are the VMCB's"


def build() -> Assembler:
    """Return the monitor, to be assembled for the address it runs at."""
    code = Assembler(64)
    _enter(code)
    _ask(code)
    _obey(code)
    _run(code)
    _forward(code)
    _guard_configuration(code)
    _match_control_registers(code)
    return code


def _enter(code: Assembler) -> None:
    """The firmware jumps here in long mode, with the CPU's signature in ESI."""
    code.label(ENTRY)
    code.mov(RAX, shared.BASE + shared.PML4_AT)
    code.mov(CR3, RAX)
    code.mov(RSP, shared.BASE + shared.MAILBOX_AT)
    code.mov(mailbox("signature"), ESI)
    code.lgdt(_table("gdt_operand"))
    code.lidt(_table("idt_operand"))
    code.mov(ECX, VM_HSAVE_PA)
    code.mov(EAX, (shared.BASE + shared.HSAVE_AT) & 0xFFFF_FFFF)
    code.mov(EDX, (shared.BASE + shared.HSAVE_AT) >> 32)
    code.wrmsr()
    code.mov(ECX, EFER_MSR)
    code.rdmsr()
    code.mov(mailbox("efer"), EAX)
    _open_shadow(code)
    code.mov(RAX, shared.BASE + shared.VMCB_AT)
    code.mov(mailbox("reset", 32), 1)
    code.jmp("ask")


def _open_shadow(code: Assembler) -> None:
    """Put RAM behind 0xC0000-0xFFFFF, as the BIOS itself would, when the machine is switched on.

    A reset keeps what the guest chose: warm boot and resume from S3 depend on it.
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


def _ask(code: Assembler) -> None:
    """Give Python the turn and wait for its answer."""
    code.label("slow")
    for name, register in _SAVED_LATER:
        code.mov(mailbox(f"gprs.{name}"), register)
    code.vmsave()
    code.rdtsc()
    code.shl(RDX, 32)
    code.or_(RDX, RAX)
    code.mov(mailbox("tsc"), RDX)
    code.mov(RAX, shared.BASE + shared.VMCB_AT)
    code.label("ask")
    code.mov(ECX, Turn.BRAIN.value)
    code.xchg(mailbox("turn"), ECX)  # locked: the turn is seen before `attended` is read
    code.cmp(mailbox("attended", 32), 0)
    code.jne("wait")
    code.mov(DX, shared.DOORBELL_PORT)
    code.out(DX, AL)
    code.label("wait")
    code.pause()
    code.cmp(mailbox("turn", 32), Turn.BRAIN.value)
    code.je("wait")


def _obey(code: Assembler) -> None:
    """Do what Python answered."""
    code.mov(ECX, mailbox("command"))
    code.cmp(ECX, Command.RESUME.value)
    code.je("resume")
    code.cmp(ECX, Command.LOAD_AND_RESUME.value)
    code.je("load")
    code.cmp(ECX, Command.ABSORB_NMI.value)
    code.je("absorb")
    code.cmp(ECX, Command.CPUID.value)
    code.je("cpuid")
    code.cmp(ECX, Command.OUT.value)
    code.je("out")
    # A shutdown: with no IDT no exception can be delivered (APM 15.7.3 knows no way to inject one).
    code.lidt(_table("null_idt_operand"))
    code.int3()

    code.label("absorb")
    code.stgi()
    code.nop()
    code.clgi()
    code.jmp("ask")
    code.label(NMI_HANDLER)
    code.iretq()

    code.label("cpuid")
    code.mov(EAX, mailbox("gprs.rax"))
    code.mov(ECX, mailbox("gprs.rcx"))
    code.cpuid()
    for name, register in (("rax", EAX), ("rbx", EBX), ("rcx", ECX), ("rdx", EDX)):
        code.mov(mailbox(f"gprs.{name}"), register)
    code.mov(RAX, shared.BASE + shared.VMCB_AT)
    code.jmp("ask")

    code.label("out")
    code.mov(EAX, mailbox("gprs.rax"))
    code.mov(DX, pci.CONFIG_ADDRESS)
    code.out(DX, EAX)
    code.mov(RAX, shared.BASE + shared.VMCB_AT)
    code.jmp("ask")

    code.label("load")
    code.vmload()
    code.label("resume")
    for name, register in _SAVED_LATER:
        code.mov(register, mailbox(f"gprs.{name}"))
    code.jmp("restore")


def _run(code: Assembler) -> None:
    """Execute VMRUN and sort the exits."""
    code.label("restore")
    for name, register in _SAVED_FIRST:
        code.mov(register, mailbox(f"gprs.{name}"))
    code.vmrun()
    for name, register in _SAVED_FIRST:
        code.mov(mailbox(f"gprs.{name}"), register)
    # TCG loses the host's CR0.PG when the guest has EFER.LME without CR4.PAE; nested paging would then be off.
    code.mov(RCX, _CR0)
    code.bt(ECX, CR0.PG.bit_length() - 1)
    code.jae("match")
    code.mov(RDX, vmcb("save.cr0"))
    code.cmp(RDX, mailbox("seen_cr0"))
    code.jne("match")
    code.mov(RDX, vmcb("save.cr4"))
    code.cmp(RDX, mailbox("seen_cr4"))
    code.jne("match")
    code.label("matched")
    code.mov(ECX, mailbox("intercepts"))  # what the last injection armed is no longer wanted
    code.mov(vmcb("control.intercept_exceptions"), ECX)
    code.mov(ECX, vmcb("control.exit_code"))
    code.sub(ECX, EXCEPTION_EXITS.start)
    code.cmp(ECX, len(EXCEPTION_EXITS))
    code.jae("other")
    code.test(vmcb("control.exit_int_info", 32), VALID)
    code.jne("slow")
    code.shl(ECX, _PLAN_SHIFT)
    code.cmp(ECX, Vector.GP.value << _PLAN_SHIFT)
    code.je("gp")
    code.label("sorted")
    code.cmp(_plan("policy", 8), Policy.FORWARD.value)
    code.jb("slow")
    code.je("inject")


def _forward(code: Assembler) -> None:
    """Record the exception, inject it again and go on. RCX: vector * size of a plan."""
    code.mov(RBX, mailbox("ring_head"))
    code.label("full")
    code.mov(RDX, RBX)
    code.sub(RDX, mailbox("ring_tail"))
    code.cmp(EDX, shared.RING_RECORDS)
    code.jb("room")
    code.pause()
    code.jmp("full")

    code.label("room")
    code.cmp(EDX, shared.RING_RECORDS // 2)
    code.je("nudge")
    code.label("nudged")
    code.and_(EBX, shared.RING_RECORDS - 1)
    code.shl(EBX, _RECORD_SHIFT)
    code.rdtsc()
    code.shl(RDX, 32)
    code.or_(RDX, RAX)
    code.mov(RAX, shared.BASE + shared.RING_AT)
    code.add(RBX, RAX)
    code.mov(_record("tsc"), RDX)
    code.mov(RAX, shared.BASE + shared.VMCB_AT)
    for field, path in _COPIED:
        _copy(code, field, path)
    code.mov(EDX, ECX)
    code.shr(EDX, _PLAN_SHIFT)
    code.mov(_record("vector"), operands.DL)
    code.mov(DX, _plan("flags"))
    code.mov(_record("flags"), DX)
    code.mov(EDX, _plan("event"))
    code.mov(_record("event"), EDX)
    code.mov(EDX, vmcb("control.exit_info_1"))
    code.mov(_record("error_code"), EDX)
    code.mov(Mem(RBX, offset_of(Record, "event") + 4), EDX)
    code.inc(mailbox("ring_head", 64))

    code.label("inject")
    code.mov(EDX, _plan("event"))
    code.mov(vmcb("control.event_inj"), EDX)
    code.mov(mailbox("injected"), EDX)
    code.mov(EDX, vmcb("control.exit_info_1"))
    code.mov(Mem(RAX, offset_of(Vmcb, "control.event_inj") + 4), EDX)
    code.mov(EDX, _plan("arm"))
    code.or_(vmcb("control.intercept_exceptions"), EDX)
    code.mov(EDX, _plan("rflags"))
    code.or_(vmcb("save.rflags"), EDX)
    code.mov(vmcb("control.interrupt_shadow", 32), 0)
    code.cmp(ECX, Vector.PF.value << _PLAN_SHIFT)
    code.jne("restore")
    code.mov(RDX, vmcb("control.exit_info_2"))
    code.mov(vmcb("save.cr2"), RDX)
    code.jmp("restore")

    # An SVM instruction may have raised a #GP with code 0 where the guest must see #UD: Python decodes it.
    code.label("gp")
    code.cmp(vmcb("control.exit_info_1", 32), 0)
    code.jne("sorted")
    code.jmp("slow")

    code.label("nudge")
    code.cmp(mailbox("attended", 32), 0)
    code.jne("nudged")
    code.mov(DX, shared.DOORBELL_PORT)
    code.out(DX, AL)
    code.jmp("nudged")


def _copy(code: Assembler, field: str, path: str) -> None:
    size = size_of(Record, field)
    register = {8: RDX, 2: DX, 1: operands.DL}[size]
    code.mov(register, vmcb(path))
    code.mov(_record(field), register)


def _guard_configuration(code: Assembler) -> None:
    """Write the PCI configuration address for the guest; one that names our device goes out without its enable bit.

    Only the plain form is answered here, OUT of 32 bits without a single step; Python does the rest.
    """
    code.label("other")
    code.cmp(ECX, ExitCode.IOIO - EXCEPTION_EXITS.start)
    code.jne("slow")
    code.test(vmcb("save.rflags", 32), RFLAGS.TF)
    code.jne("slow")
    code.mov(EDX, vmcb("control.exit_info_1"))
    code.and_(EDX, ioio.PORT | ioio.FORM)
    code.cmp(EDX, pci.CONFIG_ADDRESS << ioio.PORT_SHIFT | ioio.DWORD)
    code.jne("slow")
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
    code.mov(RAX, shared.BASE + shared.VMCB_AT)
    code.mov(RDX, vmcb("control.exit_info_2"))
    code.mov(vmcb("save.rip"), RDX)
    code.and_(vmcb("save.rflags", 32), 0xFFFF_FFFF & ~RFLAGS.RF)
    code.mov(vmcb("control.interrupt_shadow", 32), 0)
    code.jmp("restore")


def _match_control_registers(code: Assembler) -> None:
    """Give the monitor the guest's CR0.WP and the CR4 bits that cost a flush when they differ."""
    code.label("match")
    code.mov(RDX, vmcb("save.cr0"))
    code.mov(mailbox("seen_cr0"), RDX)
    code.and_(EDX, CR0.WP)
    code.and_(ECX, 0xFFFF_FFFF & ~CR0.WP)
    code.or_(ECX, EDX)
    code.or_(ECX, CR0.PG)
    code.mov(_CR0, RCX)
    code.mov(RDX, vmcb("save.cr4"))
    code.mov(mailbox("seen_cr4"), RDX)
    code.and_(EDX, _FLUSHING_CR4)
    code.or_(EDX, CR4.PAE)
    code.mov(_CR4, RDX)
    code.jmp("matched")
