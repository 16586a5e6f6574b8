"""The monitor's machine code: VMRUN, classify the exit, re-inject the exception or hand it to Python.

This is the fast path: what the monitor does without Python.
"""

from typing import Final

from trapline.arch.events import VALID
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, DX, EBX, ECX, EDX, RAX, RBX, RCX, RDX, Mem
from trapline.machine.record import STATE, Record
from trapline.processors.qemu import layout
from trapline.processors.qemu.layout import Policy

from .entry import ENTRY, JOIN, enter, join_monitor
from .guarded_ports import guard_ports
from .guest_code import tell_instruction
from .handshake import ABSORB, NMI_HANDLER, RDMSR, WRMSR, access_memory, ask, dispatch_command, sleep
from .local_apic import guard_apic
from .places import PLAN_SHIFT, RECORD_SHIFT, SAVED_FIRST, SAVED_LATER, mailbox, place, plan, record, vmcb

__all__ = ["ABSORB", "ENTRY", "JOIN", "NMI_HANDLER", "RDMSR", "WRMSR", "build"]

_CR0: Final = operands.CR0
_CR4: Final = operands.CR4

_FLUSHING_CR4: Final = CR4.PGE | CR4.PSE | CR4.SMEP | CR4.SMAP
"""Bits whose change makes a switch between guest and monitor more expensive; the monitor takes over the guest's."""

_COPIED: Final = {"exit_int_info": "control.exit_int_info", "address": "control.exit_info_2", **STATE}
"""Fields of the record that are fields of the VMCB."""


def build(*, several: bool = True) -> Assembler:
    """Return the monitor, which runs at any address. `several`: the machine has several CPUs."""
    code = Assembler(64)
    enter(code, several=several)
    ask(code)
    dispatch_command(code, several=several)
    _run(code)
    _forward(code)
    tell_instruction(code, several=several)
    _sort_others(code, several=several)
    guard_ports(code)
    if several:
        join_monitor(code)
        sleep(code)
        access_memory(code)
        guard_apic(code)
    _match_control_registers(code)
    return code


def _run(code: Assembler) -> None:
    """Execute VMRUN and sort the exits."""
    code.label("restore")
    code.or_(vmcb("save.efer", 32), EFER.SVME)  # which SMM clears, and without which VMRUN is refused (APM 15.5.1)
    for name, register in SAVED_FIRST:
        code.mov(register, mailbox(f"gprs.{name}"))
    code.vmrun()
    for name, register in SAVED_FIRST:
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
    code.mov(ECX, mailbox("intercepts"))  # without what the last injection armed
    code.mov(vmcb("control.intercept_exceptions"), ECX)
    code.mov(ECX, vmcb("control.exit_code"))
    code.sub(ECX, EXCEPTION_EXITS.start)
    code.cmp(ECX, len(EXCEPTION_EXITS))
    code.jae("other")
    code.test(vmcb("control.exit_int_info", 32), VALID)
    code.jne("slow")
    code.shl(ECX, PLAN_SHIFT)
    code.cmp(ECX, Vector.GP.value << PLAN_SHIFT)
    code.je("gp")
    code.label("sorted")
    code.cmp(plan("policy", 8), Policy.FORWARD.value)
    code.jb("slow")
    code.je("inject")


def _forward(code: Assembler) -> None:
    """Record the exception, inject it again and resume the guest. RCX: vector * size of a plan."""
    code.mov(RBX, mailbox("ring_head"))
    code.label("full")
    code.mov(RDX, RBX)
    code.sub(RDX, mailbox("ring_tail"))
    code.cmp(EDX, layout.RING_RECORDS)
    code.jb("room")
    code.pause()
    code.jmp("full")

    code.label("room")
    code.cmp(EDX, layout.RING_RECORDS // 2)
    code.je("nudge")
    code.label("nudged")
    code.and_(EBX, layout.RING_RECORDS - 1)
    code.shl(EBX, RECORD_SHIFT)
    code.rdtsc()
    code.shl(RDX, 32)
    code.or_(RDX, RAX)
    code.lea(RAX, place(layout.RING_AT))
    code.add(RBX, RAX)
    code.mov(record("tsc"), RDX)
    code.lea(RAX, place(layout.VMCB_AT))
    for field, path in _COPIED.items():
        _copy(code, field, path)
    for name, register in SAVED_LATER:
        code.mov(record(name), register)
    for name, _ in SAVED_FIRST:
        code.mov(RDX, mailbox(f"gprs.{name}"))
        code.mov(record(name), RDX)
    code.mov(EDX, ECX)
    code.shr(EDX, PLAN_SHIFT)
    code.mov(record("vector"), operands.DL)
    code.mov(DX, plan("flags"))
    code.mov(record("flags"), DX)
    code.mov(EDX, plan("event"))
    code.mov(record("event"), EDX)
    code.mov(EDX, vmcb("control.exit_info_1"))
    code.mov(record("error_code"), EDX)
    code.mov(Mem(RBX, offset_of(Record, "event") + 4), EDX)
    code.inc(mailbox("ring_head", 64))

    code.label("inject")
    code.mov(EDX, plan("event"))
    code.mov(vmcb("control.event_inj"), EDX)
    code.mov(mailbox("injected"), EDX)
    code.mov(EDX, vmcb("control.exit_info_1"))
    code.mov(Mem(RAX, offset_of(Vmcb, "control.event_inj") + 4), EDX)
    code.mov(EDX, plan("arm"))
    code.or_(vmcb("control.intercept_exceptions"), EDX)
    code.mov(EDX, vmcb("save.rflags", 32))
    code.mov(mailbox("seen_rflags"), EDX)
    code.mov(EDX, plan("rflags"))
    code.or_(vmcb("save.rflags"), EDX)
    code.mov(vmcb("control.interrupt_shadow", 32), 0)
    code.cmp(ECX, Vector.PF.value << PLAN_SHIFT)
    code.jne("restore")
    code.mov(RDX, vmcb("control.exit_info_2"))
    code.mov(vmcb("save.cr2"), RDX)
    code.jmp("restore")

    code.label("nudge")
    code.cmp(mailbox("attended", 32), 0)
    code.jne("nudged")
    code.mov(DX, layout.DOORBELL_PORT)
    code.out(DX, AL)
    code.jmp("nudged")


def _copy(code: Assembler, field: str, path: str) -> None:
    size = size_of(Record, field)
    register = {8: RDX, 2: DX, 1: operands.DL}[size]
    code.mov(register, vmcb(path))
    code.mov(record(field), register)


def _sort_others(code: Assembler, *, several: bool) -> None:
    """Sort the exits that are not exceptions; ECX: the code, less that of the first exception."""
    code.label("other")
    code.cmp(ECX, ExitCode.SWINT - EXCEPTION_EXITS.start)
    code.je("int n")
    code.cmp(ECX, ExitCode.IOIO - EXCEPTION_EXITS.start)
    code.je("port")
    if several:
        code.cmp(ECX, ExitCode.NPF - EXCEPTION_EXITS.start)
        code.je("apic")
    code.jmp("slow")


def _match_control_registers(code: Assembler) -> None:
    """Give the monitor the guest's CR0.WP and the CR4 bits that cost a flush when they differ.

    TCG that loses CR0.PG keeps the rest of the guest's CR0: with EM or TS the monitor could not use FXSAVE.
    """
    code.label("match")
    code.mov(RDX, vmcb("save.cr0"))
    code.mov(mailbox("seen_cr0"), RDX)
    code.and_(EDX, CR0.WP)
    code.and_(ECX, 0xFFFF_FFFF & ~(CR0.WP | CR0.EM | CR0.TS))
    code.or_(ECX, EDX)
    code.or_(ECX, CR0.PG)
    code.mov(_CR0, RCX)
    code.mov(RDX, vmcb("save.cr4"))
    code.mov(mailbox("seen_cr4"), RDX)
    code.and_(EDX, _FLUSHING_CR4)
    code.or_(EDX, CR4.PAE)
    code.mov(_CR4, RDX)
    code.jmp("matched")
