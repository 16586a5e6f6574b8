"""What an instruction does with RFLAGS.TF, so that it can be stepped with a TF that the guest never sees.

TF traps after the instruction (APM 13.1.4). It shows in the flags that the guest saves, in DR6.BS, and in what loads
flags. `arm` sets it, `finish` puts right what a completed instruction made of it, `undo` what it left otherwise.
"""

import contextlib
from enum import Enum
from typing import Any, Final, NamedTuple

from trapline.arch.address_space import walk
from trapline.arch.descriptors import task_fields
from trapline.arch.registers import DR6, EFER, RFLAGS
from trapline.arch.vmcb import IntCtl
from trapline.asm.decoder import Mnemonic, Register, general_register
from trapline.errors import FaultError
from trapline.machine.linear import address_mask, code_base, next_rip, read_linear, stack_address, write_linear

from .vcpu import Vcpu

_TF: Final = RFLAGS.TF
_HIT: Final = DR6.B0 | DR6.B1 | DR6.B2 | DR6.B3
_CONDITIONS: Final = _HIT | DR6.BS
_DATA: Final = (0b01, 0b11)
"""R/W of DR7 for a data breakpoint: writes, reads and writes (APM 13.1.1.4)."""
_RAX: Final = 0
_RSP: Final = 4


class Effect(Enum):
    """How an instruction meets TF."""

    KEEP = "leaves TF as it is"
    LOAD = "loads TF"
    PUSH = "pushes TF"
    SYSCALL = "saves TF in R11, and traps if SFMASK leaves it set"
    SYSRET = "loads TF from R11, and traps if it was set there"
    UNTRAPPED = "may leave the trap to the next instruction"
    SWITCH = "may switch tasks, and save TF in the TSS of the old one"
    PRIORITY = "uses CR8, which V_INTR_MASKING replaces"
    READ_DR6 = "reads DR6"
    WRITE_DR6 = "writes DR6"


_EFFECTS: Final[dict[int, Effect]] = {
    Mnemonic.POPF: Effect.LOAD,
    Mnemonic.POPFD: Effect.LOAD,
    Mnemonic.POPFQ: Effect.LOAD,
    Mnemonic.IRET: Effect.LOAD,
    Mnemonic.IRETD: Effect.LOAD,
    Mnemonic.IRETQ: Effect.LOAD,
    Mnemonic.PUSHF: Effect.PUSH,
    Mnemonic.PUSHFD: Effect.PUSH,
    Mnemonic.PUSHFQ: Effect.PUSH,
    Mnemonic.SYSCALL: Effect.SYSCALL,
    Mnemonic.SYSRET: Effect.SYSRET,
    Mnemonic.SYSRETQ: Effect.SYSRET,
    Mnemonic.STI: Effect.UNTRAPPED,
    Mnemonic.LSS: Effect.UNTRAPPED,
}
_KEEP: Final = Effect.KEEP
_SWITCHING: Final = (Effect.SWITCH, Effect.LOAD)
"""IRET, which loads TF, may switch tasks too."""
_MOVES: Final = (Mnemonic.MOV, Mnemonic.POP)
_BRANCHES: Final = (Mnemonic.JMP, Mnemonic.CALL)
_FAR: Final = ("is_jmp_far", "is_jmp_far_indirect", "is_call_far", "is_call_far_indirect")
_WRITTEN: Final[dict[int, Effect]] = {
    Register.SS: Effect.UNTRAPPED,
    Register.CR8: Effect.PRIORITY,
    Register.DR4: Effect.WRITE_DR6,
    Register.DR6: Effect.WRITE_DR6,
}
_READ: Final[dict[int, Effect]] = {
    Register.CR8: Effect.PRIORITY,
    Register.DR4: Effect.READ_DR6,
    Register.DR6: Effect.READ_DR6,
}


class Task(NamedTuple):
    """Where a task that is left keeps its state: its TSS, and the page tables for its address."""

    selector: int
    base: int
    attributes: int
    cr3: int


class Armed(NamedTuple):
    """An instruction that is about to execute with TF set, and what the guest had where TF would show."""

    effect: Effect
    instruction: Any
    rip: int
    flags: int
    dr6: int
    masked: int = 0
    """SFMASK for SYSCALL, R11 for SYSRET."""
    task: Task | None = None


def effect_of(instruction: Any) -> Effect:  # noqa: ANN401  # iced has no hints
    """Return how an instruction meets TF."""
    mnemonic = instruction.mnemonic
    if mnemonic in _MOVES:
        return _WRITTEN.get(instruction.op0_register) or _READ.get(instruction.op1_register) or _KEEP
    if mnemonic in _BRANCHES and any(getattr(instruction, kind) for kind in _FAR):
        return Effect.SWITCH
    return _EFFECTS.get(mnemonic, _KEEP)


def is_repeated(instruction: Any) -> bool:  # noqa: ANN401
    """Return whether a prefix repeats an instruction: it traps after each iteration (APM 13.1.4)."""
    return bool(instruction.is_string_instruction and (instruction.has_rep_prefix or instruction.has_repne_prefix))


def next_address(vcpu: Vcpu, instruction: Any) -> int:  # noqa: ANN401
    """Return the linear address after an instruction at RIP."""
    save = vcpu.save
    return code_base(save) + next_rip(save, instruction.len) & address_mask(save)


def arm(vcpu: Vcpu, instruction: Any, effect: Effect) -> Armed:  # noqa: ANN401
    """Set TF for the instruction at RIP."""
    save = vcpu.save
    flags, dr6 = save.rflags, save.dr6
    armed = Armed(effect, instruction, save.rip, flags, dr6)
    if effect is Effect.UNTRAPPED:
        return armed
    if effect is not Effect.READ_DR6:
        save.dr6 = dr6 & ~_CONDITIONS
    save.rflags = flags | _TF
    return armed if effect is _KEEP else _arm_special(vcpu, armed)


def _arm_special(vcpu: Vcpu, armed: Armed) -> Armed:
    """Keep, and change, what the instruction shows of TF and what keeps TF from trapping."""
    save, gprs, effect = vcpu.save, vcpu.processor.gprs, armed.effect
    if effect in _SWITCHING:
        tr = save.tr
        return armed._replace(task=Task(tr.selector, tr.base, tr.attributes, save.cr3))
    if effect is Effect.SYSCALL:
        mask = save.sfmask
        save.sfmask = mask & ~_TF
        return armed._replace(masked=mask)
    if effect is Effect.SYSRET:
        r11 = gprs.r11
        gprs.r11 = r11 | (_TF if save.efer & EFER.LMA else 0)
        return armed._replace(masked=r11)
    if effect is Effect.PRIORITY:
        # The real TPR is meant: interrupts are held back by IF instead, which MOV does not depend on.
        vcpu.control.int_ctl &= ~IntCtl.V_INTR_MASKING
        save.rflags &= ~RFLAGS.IF
    return armed


def is_complete(vcpu: Vcpu, armed: Armed) -> bool:
    """Return whether a #DB exit is that of TF: the instruction is complete."""
    if armed.effect is Effect.UNTRAPPED or not vcpu.save.dr6 & DR6.BS:
        return False
    return armed.effect is not Effect.READ_DR6 or vcpu.save.rip != armed.rip


def undo(vcpu: Vcpu, armed: Armed, *, debug: bool = False) -> None:
    """Take TF back from an instruction that did not complete; `debug`: for a #DB of the guest, whose DR6 counts."""
    if armed.effect is Effect.UNTRAPPED:
        return
    save = vcpu.save
    _restore_masks(vcpu, armed)
    if _task_switched(vcpu, armed):
        _leave_task(vcpu, armed)
    else:
        save.rflags = save.rflags & ~_TF | armed.flags & _TF
    save.dr6 = save.dr6 | armed.dr6 & DR6.BS if debug else armed.dr6


def finish(vcpu: Vcpu, armed: Armed) -> bool:
    """Take TF back after an instruction that completed; True: a #DB of the guest's own is due, and DR6 says which."""
    save = vcpu.save
    own = armed.flags & _TF
    loaded = False
    if armed.effect is not _KEEP:
        own, loaded = _finish_special(vcpu, armed, own)
    if not loaded:
        save.rflags = save.rflags & ~_TF | own
    dr6 = save.dr6
    hit = _data_hits(dr6, save.dr7) if dr6 & _HIT else 0
    if not own:
        _restore_dr6(vcpu, armed, hit)
    return bool(own or hit)


def _finish_special(vcpu: Vcpu, armed: Armed, own: int) -> tuple[int, bool]:
    """Return the TF that the guest has of its own now, or had before if it has loaded its flags: then True."""
    save, gprs, effect = vcpu.save, vcpu.processor.gprs, armed.effect
    loaded = effect is Effect.LOAD
    if _task_switched(vcpu, armed):
        loaded = True
        _leave_task(vcpu, armed)
    elif effect is Effect.SYSCALL and save.efer & EFER.LMA:
        gprs.r11 = gprs.r11 & ~_TF | own
        own &= ~armed.masked
    elif effect is Effect.SYSRET and save.efer & EFER.LMA:
        own = armed.masked & _TF
    elif effect is Effect.PUSH and not own:
        with contextlib.suppress(FaultError):  # a stack outside RAM keeps nothing
            _clear_pushed(vcpu)
    _restore_masks(vcpu, armed)
    return own, loaded


def _restore_masks(vcpu: Vcpu, armed: Armed) -> None:
    if armed.effect is Effect.SYSCALL:
        vcpu.save.sfmask = armed.masked
    elif armed.effect is Effect.SYSRET:
        vcpu.processor.gprs.r11 = armed.masked
    elif armed.effect is Effect.PRIORITY:
        vcpu.control.int_ctl |= IntCtl.V_INTR_MASKING
        vcpu.save.rflags |= armed.flags & RFLAGS.IF


def _restore_dr6(vcpu: Vcpu, armed: Armed, hit: int) -> None:
    """Leave in DR6 what the instruction leaves there without TF."""
    save = vcpu.save
    if armed.effect is Effect.WRITE_DR6:
        number = general_register(armed.instruction)
        in_vmcb = {_RAX: save.rax, _RSP: save.rsp}
        written = in_vmcb.get(number, memoryview(vcpu.processor.gprs).cast("B").cast("Q")[number])
        save.dr6 = save.dr6 & ~_CONDITIONS | written & _CONDITIONS
    elif hit:
        save.dr6 = armed.dr6 & ~_HIT | hit
    else:
        save.dr6 = armed.dr6


def _data_hits(dr6: int, dr7: int) -> int:
    """Return the bits of DR6 that are of enabled data breakpoints (APM 13.1.1.4)."""
    return sum(
        dr6 & 1 << number for number in range(4) if dr7 >> 2 * number & 0b11 and dr7 >> 16 + 4 * number & 0b11 in _DATA
    )


def _clear_pushed(vcpu: Vcpu) -> None:
    """Clear TF in the flags that the guest pushed last."""
    save, memory = vcpu.save, vcpu.processor.memory
    at = stack_address(save) + 1 & address_mask(save)
    byte = read_linear(save, memory, at, 1)[0]
    write_linear(save, memory, at, bytes((byte & ~(_TF >> 8),)))


def _task_switched(vcpu: Vcpu, armed: Armed) -> bool:
    """Return whether the instruction switched tasks (APM 12.5)."""
    return armed.task is not None and vcpu.save.tr.selector != armed.task.selector


def _leave_task(vcpu: Vcpu, armed: Armed) -> None:
    """Clear TF in the flags that the task that was left keeps in its TSS."""
    save, memory, task = vcpu.save, vcpu.processor.memory, armed.task
    if armed.flags & _TF or task is None:
        return
    at = task.base + task_fields(task.attributes).flags + 1
    with contextlib.suppress(FaultError):
        gpa = walk(memory.read, save.cr0, task.cr3, save.cr4, save.efer, at)
        memory.write(gpa, bytes((memory.read(gpa, 1)[0] & ~(_TF >> 8),)))
