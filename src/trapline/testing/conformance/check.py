"""A check as data: the state of a guest, and turns of VMRUN, each with the expected exit."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from trapline.arch import msr
from trapline.arch.consistency import why_invalid
from trapline.arch.events import VALID, Event, EventType, decode, encode
from trapline.arch.exits import ExitCode, exit_name, set_intercept
from trapline.arch.layout import zero
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import VECTORS, Kind
from trapline.arch.vmcb import IntCtl
from trapline.errors import TraplineError
from trapline.machine.processor import Capabilities, Outcome, Processor
from trapline.machine.scripted import ScriptedProcessor, Step

from .modes import CODE, CPUID, REAL, Mode, enter, image, put
from .prediction import Prediction, differences, predict, put_field

_TIMEOUT: Final = 20.0
"""Seconds that a processor may take for one turn."""
_UNDEFINED: Final = 0x5A5A_5A5A
"""The value of a field that the manual does not define, as `script` writes it."""
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})

_ALWAYS: Final = (
    ExitCode.CPUID, ExitCode.HLT, ExitCode.MSR, ExitCode.SHUTDOWN, ExitCode.VMRUN, ExitCode.VMMCALL, ExitCode.VMLOAD,
    ExitCode.VMSAVE, ExitCode.STGI, ExitCode.CLGI, ExitCode.SKINIT, ExitCode.INVLPGA,
)  # fmt: skip


class ConformanceError(TraplineError):
    """A processor departs from the manual; the message names each difference."""


class Exit(NamedTuple):
    """The #VMEXIT that a turn ends with. What is not named here is unchanged since the entry.

    Addresses of code are offsets in the check's code.
    """

    code: int
    rip: int | None = None
    """None: at the handler of the delivered event, or unchanged."""
    info_1: int | None = None
    """None, here and below: the manual does not define it."""
    info_2: int | None = None
    nrip: int | None = None
    vectoring: Event | None = None
    """The event whose delivery failed: EXITINTINFO."""
    drops: bool = False
    """The injected event combines to another; EXITINTINFO may hold either."""
    delivers: Event | None = None
    """An event of the guest's own that was delivered, besides one that was injected."""
    raised_at: int | None = None
    """RIP when the guest's own event was raised; None: at the entry."""
    next_rip: int | None = None
    """RIP of the instruction after the one that raised it."""
    changes: Mapping[str, int] = _NOTHING
    """Fields by path, as "save.cr2", that the guest or the CPU wrote before the event was delivered."""
    stores: tuple[tuple[int, bytes], ...] = ()
    """(gpa, bytes) that the guest wrote."""
    shadow: int = 0
    """The interrupt shadow."""
    v_irq: bool = False
    """A virtual interrupt is still pending."""
    keeps_state: bool = True
    """The manual defines the registers."""


class Turn(NamedTuple):
    """One call of `Processor.run`: what is written before it, and how it ends."""

    expected: Exit | Outcome
    sets: Mapping[str, int] = _NOTHING
    """Fields by path, as "save.cr2"; "save.rip" and "control.nrip" are offsets in the check's code."""
    writes: tuple[tuple[int, bytes], ...] = ()
    code: bytes | None = None
    """Replaces the check's code."""
    exceptions: int = 0
    """The mask of intercepted exceptions."""
    intercepts: tuple[ExitCode, ...] = ()
    """Besides those that every check has: CPUID, MSR, HLT, SHUTDOWN and the SVM instructions."""
    inject: Event | None = None
    seconds: float = _TIMEOUT
    """Seconds until the deadline."""
    act: Callable[[Processor], object] | None = None
    """Called just before."""
    step: "Step | None" = None
    """The step of the script for an outcome that is not a #VMEXIT; None: the outcome itself."""


class Check(NamedTuple):
    """One row of the table."""

    name: str
    description: str
    """What is checked, on one line."""
    mode: Mode
    cpl: int
    code: bytes
    turns: tuple[Turn, ...]
    why_not: Callable[[Capabilities], str | None] = lambda capabilities: None
    """Why the check is skipped for a processor with these capabilities; None: it is not."""
    at: int = CODE
    """The address of the code."""


_CODE_FIELDS: Final = frozenset(("save.rip", "control.nrip"))


_QUIET: Final = Check(
    "before each check",
    "real mode masks both interrupt controllers of a PC",
    REAL,
    0,
    b"\xe6\x21\xe6\xa1" + CPUID,  # OUT 0x21, AL; OUT 0xA1, AL
    (Turn(Exit(ExitCode.CPUID, rip=4), sets={"save.rax": 0xFF}),),
)


def run(check: Check, processor: Processor) -> None:
    """Do a check. Raises ConformanceError. The first outcome of the machine, RESET, must have been taken before.

    Another check can follow, whether this one passed or not.
    """
    for first in (_QUIET, check):
        _prepare(first, processor)
        _take_turns(first, processor)


def _take_turns(check: Check, processor: Processor) -> None:
    for number, turn in enumerate(check.turns, 1):
        wrong = _take_turn(turn, check.at, processor)
        if wrong:
            turns = f", turn {number}" if len(check.turns) > 1 else ""
            raise ConformanceError(f"{check.name}{turns}: " + "; ".join(wrong))


def script(check: Check) -> tuple[Step, ...]:
    """Return what a processor does according to the manual, as steps of a `ScriptedProcessor`."""
    steps: list[Step] = []
    for one in (_QUIET, check):
        for turn in one.turns:
            if isinstance(turn.expected, Exit):
                steps.append(_player(turn.expected, one.at))
            elif turn.step is not None:
                steps.append(turn.step)
            elif turn.expected is not Outcome.KICKED:  # `act` kicks before the step
                steps.append(turn.expected)
    return tuple(steps)


def _prepare(check: Check, processor: Processor) -> None:
    memory = bytearray(image(check.mode))
    put(memory, check.at, check.code)
    processor.memory.write(0, bytes(memory))
    vmcb = processor.vmcb
    enter(vmcb.save, check.mode, check.cpl, check.at)
    zero(processor.gprs)
    control = vmcb.control
    control.asid, control.int_ctl, control.interrupt_shadow, control.event_inj = 1, 0, 0, 0
    control.tlb_control, control.clean = 1, 0
    for number in (msr.VM_CR, msr.VM_HSAVE_PA):
        bit = msr.msrpm_bit(number)
        assert bit is not None
        processor.msrpm[bit // 8] |= 0b11 << bit % 8


def _intercept(turn: Turn, processor: Processor) -> None:
    control = processor.vmcb.control
    control.intercept_cr = control.intercept_dr = control.intercept_misc3 = 0
    control.intercept_misc1 = control.intercept_misc2 = 0
    control.intercept_exceptions = turn.exceptions
    for code in (*_ALWAYS, *turn.intercepts):
        set_intercept(control, code)
    processor.intercepts_changed(0)


def _take_turn(turn: Turn, at: int, processor: Processor) -> list[str]:
    _intercept(turn, processor)
    for gpa, data in turn.writes:
        processor.memory.write(gpa, data)
    if turn.code is not None:
        processor.memory.write(at, turn.code)
    vmcb = processor.vmcb
    for path, value in turn.sets.items():
        put_field(vmcb, processor.gprs, path, value + at if path in _CODE_FIELDS else value)
    if turn.inject is not None:
        vmcb.control.event_inj = encode(turn.inject)
        _set_rf(turn.inject, processor)
    expected = turn.expected
    prediction = _predict(expected, at, processor) if isinstance(expected, Exit) else None
    if turn.act is not None:
        turn.act(processor)
    outcome = processor.run(time.monotonic() + turn.seconds)
    if prediction is None or isinstance(expected, Outcome):
        assert isinstance(expected, Outcome)
        return [] if outcome is expected else [f"run ends with {_ending(outcome, processor)}, expected {expected.name}"]
    if outcome is not Outcome.VMEXIT:
        return [f"run ends with {outcome.name}, expected the exit {exit_name(expected.code)}"]
    return _wrong_exit(expected, at, prediction, processor)


def _ending(outcome: Outcome, processor: Processor) -> str:
    if outcome is Outcome.VMEXIT:
        return f"the exit {exit_name(processor.vmcb.control.exit_code)} at {processor.vmcb.save.rip:#x}"
    return outcome.name


def _set_rf(event: Event, processor: Processor) -> None:
    """Set RF for a fault as the hypervisor does when it forwards one."""
    fault = event.type == EventType.EXCEPTION and VECTORS[event.vector].kind is Kind.FAULT
    if fault and processor.capabilities.forwards_set_rf:
        processor.vmcb.save.rflags |= RFLAGS.RF


def _absolute(at: int, offset: int | None) -> int | None:
    return None if offset is None else at + offset


def _predict(exit: Exit, at: int, processor: Processor) -> Prediction:
    return predict(
        processor,
        exit.delivers,
        fails=exit.vectoring is not None or exit.drops or not exit.keeps_state,
        raised_at=_absolute(at, exit.raised_at),
        next_rip=_absolute(at, exit.next_rip),
        changes=exit.changes,
        stores=exit.stores,
        rip=_absolute(at, exit.rip),
    )


def _wrong_exit(exit: Exit, at: int, prediction: Prediction, processor: Processor) -> list[str]:
    control, save = processor.vmcb.control, processor.vmcb.save
    if control.exit_code != exit.code:
        details = f"EXITINFO1 {control.exit_info_1:#x}, EXITINFO2 {control.exit_info_2:#x}, RIP {save.rip:#x}"
        return [f"the exit is {exit_name(control.exit_code)} ({details}), expected {exit_name(exit.code)}"]
    wrong = [
        f"{name} is {value:#x}, expected {wanted:#x}"
        for name, value, wanted in (
            ("EXITINFO1", control.exit_info_1, exit.info_1),
            ("EXITINFO2", control.exit_info_2, exit.info_2),
            ("nRIP", control.nrip, _nrip(exit, at, prediction)),
        )
        if wanted is not None and value != wanted
    ]
    vectoring = decode(control.exit_int_info)
    if exit.keeps_state:
        if vectoring != exit.vectoring and not exit.drops:
            wrong.append(f"EXITINTINFO holds {vectoring}, expected {exit.vectoring}")
        if control.interrupt_shadow & 1 != exit.shadow:
            wrong.append(f"the interrupt shadow is {control.interrupt_shadow & 1}, expected {exit.shadow}")
        if bool(control.int_ctl & IntCtl.V_IRQ) is not exit.v_irq:
            wrong.append(f"V_IRQ is {int(not exit.v_irq)}, expected {int(exit.v_irq)}")
        if control.event_inj & VALID:
            wrong.append("EVENTINJ.V is still set")
        wrong += differences(prediction, processor)
    return wrong


def _nrip(exit: Exit, at: int, prediction: Prediction) -> int | None:
    return prediction.save.rip + len(CPUID) if exit.code == ExitCode.CPUID else _absolute(at, exit.nrip)


def _player(exit: Exit, at: int) -> Step:
    """Return the step that does what the manual defines."""

    def step(processor: ScriptedProcessor) -> None:
        vmcb, control = processor.vmcb, processor.vmcb.control
        prediction = _predict(exit, at, processor)
        control.event_inj &= ~VALID
        control.exit_code = ExitCode.INVALID if why_invalid(vmcb) else exit.code
        if not exit.keeps_state:
            return
        prediction.store(processor)
        control.exit_info_1 = _UNDEFINED if exit.info_1 is None else exit.info_1
        control.exit_info_2 = _UNDEFINED if exit.info_2 is None else exit.info_2
        nrip = _nrip(exit, at, prediction)
        control.nrip = _UNDEFINED if nrip is None else nrip
        control.exit_int_info = encode(exit.vectoring) if exit.vectoring else 0
        control.interrupt_shadow = exit.shadow
        control.int_ctl = control.int_ctl | IntCtl.V_IRQ if exit.v_irq else control.int_ctl & ~IntCtl.V_IRQ

    return step
