"""Steps of a scripted guest in real mode: code at 0:1000, handler v at 0:2000 + 16 * v, the stack below 0:8000."""

import pytest

from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import IntCtl
from trapline.errors import UsageError
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.linear import code_address
from trapline.machine.processor import Outcome, Watchpoint
from trapline.machine.scripted import MANUAL, ScriptedProcessor, vmexit, watchpoint

CODE, STACK = 0x1000, 0x8000
TF, BS = RFLAGS.TF, DR6.BS
FLAGS = RFLAGS.ALWAYS_ONE | RFLAGS.IF
UD, PF, GP, DB = (1 << vector for vector in (Vector.UD, Vector.PF, Vector.GP, Vector.DB))
RESET_VECTOR = 0xFFFF_FFF0
NOP = b"\x90"


def handler(vector):
    return 0x2000 + 16 * vector


def trap(length=1, **changed):
    """Return a step of a script: an instruction executes and traps by TF."""

    def perform(processor):
        save = processor.vmcb.save
        assert save.rflags & TF
        save.rip += length
        for name, value in changed.items():
            setattr(save if hasattr(save, name) else processor.gprs, name, value)
        save.dr6 |= BS
        vmexit(0x41)(processor)

    return perform


def reach(address, *others, **changed):
    """Return a step of a script: the guest runs to an address with a breakpoint, while others are set too."""

    def perform(processor):
        assert processor.entries[-1].breakpoints == {address, *others}
        processor.vmcb.save.rip = address
        for name, value in changed.items():
            setattr(processor.vmcb.save, name, value)
        return Outcome.BREAKPOINT

    return perform


@pytest.fixture
def machine():
    """Return a function that makes a VM with code, whose registers begin as told."""

    def machine(code, *script, mask=0, observers=(), capabilities=None, reboots=False, notes=None, idt=0x3FF, **begin):
        processor = ScriptedProcessor([Outcome.RESET, *script], MANUAL._replace(**capabilities or {}))
        processor.memory.write(CODE, code)
        for vector in range(256):
            processor.memory.write(4 * vector, handler(vector).to_bytes(4, "little"))

        def enter(save, gprs):
            save.rip, save.rsp, save.rflags = CODE, STACK, FLAGS
            save.cs.selector = save.cs.base = 0
            save.cs.attributes, save.ss.attributes = 0x9B, 0x93
            save.idtr.limit = idt
            for name, value in begin.items():
                setattr(save if hasattr(save, name) else gprs, name, value)

        notes = [] if notes is None else notes
        recorders = (lambda vcpu, exit, injected: notes.append((exit.event.vector, injected)),)
        vm = Vm(processor, mask=mask, enter=enter, reboots=reboots, recorders=recorders)
        for observer in observers:
            vm.observers.add(observer)
        return vm

    return machine


def pushed(vm):
    """Return RIP and the flags of the frame that was pushed last."""
    frame = vm.processor.memory.read(vm.processor.vmcb.save.rsp, 6)
    return int.from_bytes(frame[:2], "little"), int.from_bytes(frame[4:], "little")


def test_a_step_executes_one_instruction_with_tf_and_leaves_none(machine):
    vm = machine(NOP, trap())
    assert vm.step().reason is StopReason.STEP
    save = vm.processor.vmcb.save
    assert (save.rip, save.rflags, save.dr6) == (CODE + 1, FLAGS, DR6.FIXED)
    entry = vm.processor.entries[-1]
    assert entry.vmcb.save.rflags == FLAGS | TF


def test_meanwhile_nothing_else_gets_in(machine):
    vm = machine(NOP, trap())
    vm.step()
    control = vm.processor.entries[-1].vmcb.control
    assert control.intercept_exceptions == 0xFFFF_FFFF & ~(1 << 2 | 1 << 9)
    assert control.int_ctl & IntCtl.V_INTR_MASKING
    assert all(
        is_intercepted(control, code) for code in (ExitCode.NMI, ExitCode.SWINT, ExitCode.HLT, ExitCode.SHUTDOWN)
    )
    assert vm.processor.entries[-1].forwarded == 0


def test_a_run_has_its_own_intercepts_again(machine):
    vm = machine(NOP, trap(), Outcome.OFF, mask=UD)
    vm.step()
    vm.run()
    entry = vm.processor.entries[-1]
    assert entry.vmcb.control.intercept_exceptions == entry.forwarded == UD
    assert not entry.vmcb.control.int_ctl
    assert not is_intercepted(entry.vmcb.control, ExitCode.HLT)


def test_intercepts_are_written_once_for_many_steps(machine, monkeypatch):
    vm = machine(NOP * 20, *[trap()] * 20)
    vm.step()
    changed = []
    monkeypatch.setattr(vm.processor, "intercepts_changed", changed.append)
    for _ in range(19):
        assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == CODE + 20
    assert not changed


def test_ts_stays_the_processors_where_its_error_code_is_unknown(machine):
    vm = machine(NOP, trap(), capabilities={"ts_error_code": False})
    vm.step()
    assert not vm.processor.entries[-1].vmcb.control.intercept_exceptions & 1 << Vector.TS


@pytest.mark.parametrize("flags", [FLAGS, FLAGS | TF])
def test_pushf_pushes_the_guests_own_tf(machine, flags):
    def push(processor):
        trap(rsp=STACK - 2)(processor)
        processor.memory.write(STACK - 2, (processor.entries[-1].vmcb.save.rflags & 0xFFFF).to_bytes(2, "little"))

    vm = machine(b"\x9c", push, rflags=flags)
    vm.step()
    assert vm.processor.memory.read(STACK - 2, 2) == flags.to_bytes(2, "little")


@pytest.mark.parametrize("code", [b"\x9d", b"\xcf", b"\x66\xcf"])
@pytest.mark.parametrize("loaded", [2, 2 | TF])
def test_what_loads_flags_decides_about_tf(machine, code, loaded):
    vm = machine(code, trap(rflags=loaded))
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rflags == loaded


def test_a_guest_that_steps_itself_gets_its_own_trap(machine):
    vm = machine(NOP, trap(), rflags=FLAGS | TF)
    assert vm.step().reason is StopReason.STEP
    save = vm.processor.vmcb.save
    assert (save.rip, save.rflags & TF, save.dr6 & BS) == (handler(1), 0, BS)
    assert pushed(vm) == (CODE + 1, FLAGS | TF)


LONG = {"efer": 0x1501, "cr0": 0x8000_0011, "cr4": 0x20, "cr3": 0x4000}


@pytest.fixture
def long_mode(machine):
    """Return `machine` for 64-bit code: the first 2 MiB are mapped to themselves."""

    def long_mode(code, *script, **begin):
        def enter_long(processor):
            for at, entry in ((0x4000, 0x5007), (0x5000, 0x6007), (0x6000, 0x87)):
                processor.memory.write(at, entry.to_bytes(8, "little"))
            return Outcome.RESET

        vm = machine(code, *script, **{**LONG, **begin})
        vm.processor.script[0] = enter_long
        enter = vm.vcpu.policy.enter

        def enter_64(save, gprs):
            enter(save, gprs)
            save.cs.attributes = 0x29B

        vm.vcpu.policy = vm._policy = vm.vcpu.policy._replace(enter=enter_64)
        return vm

    return long_mode


@pytest.mark.parametrize(("mask", "own"), [(0, 0), (TF, 0), (TF, TF), (TF | RFLAGS.IF, 0)])
def test_syscall_saves_the_guests_own_tf(long_mode, mask, own):
    def syscall(processor):
        save = processor.entries[-1].vmcb.save
        assert not save.sfmask & TF, "TF would not trap"
        trap(rip=0x3000, r11=save.rflags, rflags=save.rflags & ~save.sfmask)(processor)

    vm = long_mode(b"\x0f\x05", syscall, rflags=FLAGS | own, sfmask=mask)
    assert vm.step().reason is StopReason.STEP
    save = vm.processor.vmcb.save
    assert vm.processor.gprs.r11 == FLAGS | own
    assert (save.sfmask, save.rip, save.rflags) == (mask, 0x3000, FLAGS & ~mask)


@pytest.mark.parametrize("own", [0, TF])
def test_sysret_loads_tf_from_r11_and_traps_by_it(long_mode, watch, own):
    def sysret(processor):
        r11 = processor.entries[-1].gprs.r11
        assert r11 & TF, "it would not trap"
        trap(rip=0x3000, rflags=r11)(processor)

    observer = watch(verdicts=[Verdict.STOP])
    vm = long_mode(b"\x48\x0f\x07", sysret, r11=FLAGS | own, mask=DB, observers=[observer])
    assert vm.step().reason is (StopReason.EXCEPTION if own else StopReason.STEP)
    assert vm.processor.gprs.r11 == vm.processor.vmcb.save.rflags == FLAGS | own


@pytest.mark.parametrize("code", [b"\xfb", b"\x8e\xd0", b"\x17", b"\x0f\xb2\x07"])
def test_what_may_defer_the_trap_runs_to_a_breakpoint_behind_it(machine, code):
    vm = machine(code, reach(CODE + len(code)), rflags=2)
    assert vm.step().reason is StopReason.STEP
    assert not vm.processor.entries[-1].vmcb.save.rflags & TF
    assert vm.processor.vmcb.save.rip == CODE + len(code)


def test_without_breakpoints_tf_has_to_do(machine, monkeypatch):
    vm = machine(b"\x8e\xd0", trap(2))

    def refuse(addresses):
        raise UsageError("none")

    monkeypatch.setattr(vm.processor, "set_breakpoints", refuse)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == CODE + 2


@pytest.mark.parametrize("forced", [0, UD])
def test_an_exception_is_shown_as_in_a_run_and_delivered(machine, watch, forced):
    observer, notes = watch(), []
    vm = machine(b"\x0f\x0b", vmexit(0x46), mask=forced, observers=[observer], notes=notes)
    assert vm.step().reason is StopReason.STEP
    save = vm.processor.vmcb.save
    assert save.rip == handler(Vector.UD)
    assert pushed(vm) == (CODE, FLAGS)
    assert [exit.event.vector for exit in observer.seen] == [Vector.UD] * bool(forced)
    assert [vector for vector, _ in notes] == [Vector.UD] * bool(forced)
    assert not vm.processor.vmcb.control.event_inj


def test_a_page_fault_writes_cr2_whether_forced_or_not(machine):
    for mask in (0, PF):
        vm = machine(NOP, vmexit(0x4E, info_1=2, info_2=0x1234), mask=mask)
        vm.step()
        assert vm.processor.vmcb.save.cr2 == 0x1234


def test_an_observer_stops_a_step_and_the_next_one_delivers(machine, watch):
    vm = machine(b"\x0f\x0b", vmexit(0x46), mask=UD, observers=[watch(verdicts=[Verdict.STOP])])
    assert vm.step().reason is StopReason.EXCEPTION
    assert vm.processor.vmcb.save.rip == CODE
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == handler(Vector.UD)


def test_a_discarded_exception_ends_the_step(machine, watch):
    vm = machine(b"\x0f\x0b", vmexit(0x46), mask=UD, observers=[watch(verdicts=[Verdict.DISCARD])])
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == CODE


def test_after_a_discarded_exception_the_next_step_executes(machine, watch):
    vm = machine(NOP, vmexit(0x46), trap(), mask=UD, observers=[watch(verdicts=[Verdict.STOP])])
    vm.step()
    vm.decide(Verdict.DISCARD)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == CODE + 1


def test_an_event_that_is_owed_is_a_step(machine):
    vm = machine(NOP, trap(), Outcome.KICKED)
    vm.step()
    vm.processor.vmcb.control.event_inj = 0x8000_0020
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == handler(0x20)
    assert pushed(vm) == (CODE + 1, FLAGS)
    assert not vm.processor.vmcb.save.rflags & RFLAGS.IF


def test_int_n_is_delivered_from_behind_it(machine):
    def int_n(processor):
        vmexit(0x75, info_1=0x21)(processor)
        processor.vmcb.control.nrip = CODE + 2

    vm = machine(b"\xcd\x21", int_n)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == handler(0x21)
    assert pushed(vm) == (CODE + 2, FLAGS)


def test_a_delivery_that_fails_goes_on_as_in_a_run(machine):
    notes = []
    vm = machine(b"\x0f\x0b", vmexit(0x46), mask=UD | GP | 1 << Vector.DF, notes=notes, idt=0)
    assert vm.step().reason is StopReason.SHUTDOWN
    vectors = [vector for vector, _ in notes]
    assert vectors == [Vector.UD, Vector.GP, Vector.GP, Vector.DF, Vector.GP]


def test_a_delivery_that_fails_without_being_forced_shuts_down_too(machine):
    vm = machine(b"\x0f\x0b", vmexit(0x46), idt=0)
    assert vm.step().reason is StopReason.SHUTDOWN


def test_a_double_fault_that_is_forced_is_seen_though_its_parts_are_not(machine):
    notes = []
    vm = machine(b"\x0f\x0b", vmexit(0x46), mask=1 << Vector.DF, notes=notes, idt=0)
    assert vm.step().reason is StopReason.SHUTDOWN
    assert [vector for vector, _ in notes] == [Vector.DF]


@pytest.mark.parametrize("mask", [0, DB])
def test_int1_is_a_debug_exception(machine, watch, mask):
    observer = watch()
    vm = machine(b"\xf1", vmexit(ExitCode.ICEBP), mask=mask, observers=[observer])
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == handler(1)
    assert pushed(vm) == (CODE + 1, FLAGS)
    assert [exit.event.vector for exit in observer.seen] == ([Vector.DB] if mask else [])


@pytest.mark.parametrize("own", [0, TF])
def test_an_instruction_that_the_hypervisor_executes_is_a_step(machine, own):
    def cpuid(processor):
        vmexit(ExitCode.CPUID)(processor)
        processor.vmcb.control.nrip = CODE + 2

    vm = machine(b"\x0f\xa2", cpuid, rflags=FLAGS | own)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == (handler(1) if own else CODE + 2)


def test_pause_is_nothing(machine):
    vm = machine(b"\xf3\x90", vmexit(ExitCode.PAUSE))
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == CODE + 2


def interrupted(processor):
    control = processor.entries[-1].vmcb.control
    assert is_intercepted(control, ExitCode.INTR)
    assert not is_intercepted(control, ExitCode.HLT)
    assert not control.int_ctl & IntCtl.V_INTR_MASKING
    processor.vmcb.save.rip = CODE + 1
    vmexit(ExitCode.INTR)(processor)


def test_hlt_waits_for_an_interrupt_and_leaves_it(machine):
    vm = machine(b"\xf4\x90", vmexit(ExitCode.HLT), interrupted, trap())
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == CODE + 1
    vm.step()
    control = vm.processor.entries[-1].vmcb.control
    assert is_intercepted(control, ExitCode.HLT)
    assert not is_intercepted(control, ExitCode.INTR)
    assert control.int_ctl & IntCtl.V_INTR_MASKING


def test_hlt_that_takes_too_long_is_not_executed(machine):
    vm = machine(b"\xf4", vmexit(ExitCode.HLT), Outcome.DEADLINE, vmexit(ExitCode.HLT), interrupted)
    assert vm.step(12.5).reason is StopReason.TIMEOUT
    assert vm.processor.entries[-1].deadline == 12.5
    assert vm.processor.commands == ["kick"]
    save, control = vm.processor.vmcb.save, vm.processor.vmcb.control
    assert (save.rip, save.rflags, control.interrupt_shadow) == (CODE, FLAGS, 1)
    assert vm.step().reason is StopReason.STEP
    assert (save.rip, control.interrupt_shadow) == (CODE + 1, 0)


def test_a_halt_for_ever_is_the_end(machine):
    vm = machine(b"\xf4", vmexit(ExitCode.HLT), Outcome.HALTED)
    assert vm.step().reason is StopReason.HALTED


def test_a_guest_that_was_halted_before_the_step_waits_too(machine):
    vm = machine(NOP * 2, Outcome.HALTED, vmexit(ExitCode.INTR))
    assert vm.step().reason is StopReason.STEP
    save, control = vm.processor.vmcb.save, vm.processor.vmcb.control
    assert is_intercepted(vm.processor.entries[-1].vmcb.control, ExitCode.INTR)
    assert (save.rip, save.rflags, control.interrupt_shadow) == (CODE, FLAGS, 0)


def test_a_guest_that_was_halted_before_the_step_is_not_taken_back_before_its_hlt(machine):
    vm = machine(NOP * 2, Outcome.HALTED, Outcome.DEADLINE, Outcome.KICKED)
    assert vm.step(12.5).reason is StopReason.TIMEOUT
    save, control = vm.processor.vmcb.save, vm.processor.vmcb.control
    assert (save.rip, save.rflags, control.interrupt_shadow) == (CODE, FLAGS, 0)


def test_cr8_is_the_real_one(machine):
    vm = machine(b"\xf0\x0f\x22\xc0", trap(4))
    assert vm.step().reason is StopReason.STEP
    entry = vm.processor.entries[-1].vmcb
    assert not entry.control.int_ctl & IntCtl.V_INTR_MASKING
    assert not entry.save.rflags & RFLAGS.IF
    assert vm.processor.vmcb.save.rflags == FLAGS
    assert vm.processor.vmcb.control.int_ctl & IntCtl.V_INTR_MASKING


def test_dr6_keeps_what_the_guest_has_there(machine):
    left = DR6.FIXED | BS | DR6.B2
    vm = machine(NOP, trap(), dr6=left)
    vm.step()
    assert vm.processor.vmcb.save.dr6 == left


def test_dr6_is_read_as_it_is(machine):
    left = DR6.FIXED | BS
    vm = machine(b"\x0f\x21\xf0", trap(3), dr6=left)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.entries[-1].vmcb.save.dr6 == vm.processor.vmcb.save.dr6 == left


@pytest.mark.parametrize("written", [0, BS, DR6.B1 | BS])
def test_dr6_is_written_as_told(machine, written):
    vm = machine(b"\x0f\x23\xf0", trap(3, dr6=DR6.FIXED | DR6.B3), rax=written)
    vm.step()
    assert vm.processor.vmcb.save.dr6 == DR6.FIXED | written


def test_a_watchpoint_of_the_guest_raises_its_exception(machine):
    vm = machine(NOP, trap(dr6=DR6.FIXED | DR6.B0), dr7=0x1_0401)
    assert vm.step().reason is StopReason.STEP
    save = vm.processor.vmcb.save
    assert (save.rip, save.dr6) == (handler(1), DR6.FIXED | DR6.B0)
    assert pushed(vm) == (CODE + 1, FLAGS)


def test_a_breakpoint_of_the_guest_is_its_own(machine):
    def hit(processor):
        processor.vmcb.save.dr6 |= DR6.B0
        vmexit(0x41)(processor)

    vm = machine(NOP, hit, dr7=0x401, dr6=DR6.FIXED | BS)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.dr6 == DR6.FIXED | BS | DR6.B0
    assert pushed(vm) == (CODE, FLAGS)


def test_an_interrupted_step_has_done_nothing(machine):
    vm = machine(NOP, Outcome.KICKED, Outcome.KICKED, trap())
    vm._interrupted = True
    assert vm.step().reason is StopReason.INTERRUPTED
    assert (vm.processor.vmcb.save.rip, vm.processor.vmcb.save.rflags) == (CODE, FLAGS)
    assert vm.step().reason is StopReason.STEP, "somebody only looked"


@pytest.mark.parametrize("reboots", [False, True])
def test_a_reset_ends_the_step(machine, reboots):
    vm = machine(NOP, Outcome.RESET, reboots=reboots)
    assert vm.step().reason is (StopReason.STEP if reboots else StopReason.RESET)


def test_an_init_ends_the_step(machine):
    vm = machine(NOP, Outcome.INIT, pytest.fail)
    stop = vm.step()
    assert (stop.reason, stop.detail) == (StopReason.STEP, "CPU 0 waits for a startup IPI")
    assert vm.vcpu.waits
    assert not vm.processor.vmcb.save.rflags & TF


def test_a_run_begins_with_a_cpu_that_waits_where_a_breakpoint_is(machine):
    """The address to which an INIT sets it is one that is asked for: the reset vector."""
    vm = machine(NOP, Outcome.INIT, Outcome.SIPI)
    vm.set_breakpoints(frozenset((RESET_VECTOR,)))
    vm.step()
    assert (code_address(vm.vcpu.save), vm.vcpu.waits) == (RESET_VECTOR, True)
    assert vm.run().reason is StopReason.OFF
    assert [entry.breakpoints for entry in vm.processor.entries[2:]] == [{RESET_VECTOR}] * 2


def test_a_task_that_is_left_has_no_tf_in_its_flags(machine):
    tss = 0x7000
    begin = {"cr0": 0x11, "rflags": 2}

    def switch(processor):
        memory, save = processor.memory, processor.vmcb.save
        memory.write(tss + 0x24, save.rflags.to_bytes(4, "little"))
        save.tr.selector, save.tr.base = 0x30, 0x7100
        trap(rip=0x3000, rflags=0x202)(processor)

    vm = machine(b"\xea\x00\x00\x30\x00", switch, **begin)
    enter = vm.vcpu.policy.enter

    def enter_task(save, gprs):
        enter(save, gprs)
        save.tr.selector, save.tr.base, save.tr.attributes = 0x28, tss, 0x8B

    vm.vcpu.policy = vm._policy = vm.vcpu.policy._replace(enter=enter_task)
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.memory.read(tss + 0x24, 4) == b"\x02\0\0\0"
    assert vm.processor.vmcb.save.rflags == 0x202


def test_an_nmi_is_taken_by_the_guest_itself(machine):
    def nmi(processor):
        assert not is_intercepted(processor.entries[-1].vmcb.control, ExitCode.NMI)
        return reach(handler(2))(processor)

    vm = machine(NOP, vmexit(ExitCode.NMI), nmi, trap(rip=handler(2)))
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.vmcb.save.rip == handler(2)
    vm.step()
    assert is_intercepted(vm.processor.entries[-1].vmcb.control, ExitCode.NMI)


def test_a_processor_that_delivers_otherwise_delivers_itself(machine):
    vm = machine(b"\x0f\x0b", vmexit(0x46), reach(handler(6)), capabilities={"delivers_as_modelled": False})
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.entries[-1].event == Event(6, EventType.EXCEPTION)
    assert not vm.processor.entries[-1].vmcb.save.rflags & TF


def test_run_ends_at_a_breakpoint(machine):
    vm = machine(NOP * 8, trap(), reach(CODE + 4))
    vm.step()
    vm.set_breakpoints(frozenset({CODE + 4}))
    assert vm.run().reason is StopReason.BREAKPOINT


def test_run_gets_past_the_breakpoint_that_it_begins_at(machine):
    vm = machine(NOP * 8, reach(CODE + 4), trap(), reach(CODE + 4, rip=CODE + 4))
    vm.set_breakpoints(frozenset({CODE + 4}))
    assert vm.run().reason is StopReason.BREAKPOINT
    assert vm.run().reason is StopReason.BREAKPOINT
    assert [entry.breakpoints for entry in vm.processor.entries[1:]] == [{CODE + 4}, frozenset(), {CODE + 4}]


def test_a_repeated_instruction_is_one_to_get_past(machine):
    vm = machine(NOP * 4 + b"\xf3\xa4\x90", reach(CODE + 4), reach(CODE + 6), Outcome.OFF)
    vm.set_breakpoints(frozenset({CODE + 4}))
    vm.run()
    assert vm.run().reason is StopReason.OFF


def test_other_breakpoints_stay_where_a_step_needs_one_of_its_own(machine):
    here, there = CODE + 4, CODE + 8
    code = NOP * 4 + b"\xf3\xa4" + NOP * 2 + b"\x0f\x0b"
    script = (reach(here, there), reach(here + 2, there), reach(there, here), vmexit(0x46), reach(handler(6), here))
    vm = machine(code, *script, Outcome.OFF, capabilities={"delivers_as_modelled": False})
    vm.set_breakpoints(frozenset({here, there}))
    assert [vm.run().reason for _ in range(3)] == [StopReason.BREAKPOINT, StopReason.BREAKPOINT, StopReason.OFF]


def test_a_run_loads_an_interrupt_shadow_by_a_step(machine):
    vm = machine(b"\xfb\x90\x90", reach(CODE + 1), trap(), Outcome.OFF)
    vm.step()
    vm.processor.vmcb.control.interrupt_shadow = 1
    assert vm.run().reason is StopReason.OFF
    assert vm.processor.vmcb.save.rip == CODE + 2


WATCHED = Watchpoint(0x3000, 4, reads=False)


def test_run_tells_which_watchpoint_was_hit(machine):
    vm = machine(NOP, watchpoint(WATCHED))
    vm.set_watchpoints((WATCHED,))
    stop = vm.run()
    assert (stop.reason, stop.watchpoint) == (StopReason.WATCHPOINT, WATCHED)


def test_a_step_tells_which_watchpoint_was_hit(machine):
    def hit(processor):
        processor.vmcb.save.rip += 1
        return watchpoint(WATCHED)(processor)

    def owed(processor):
        processor.vmcb.save.dr6 |= BS
        vmexit(0x41)(processor)

    vm = machine(NOP, hit, owed)
    stop = vm.step()
    assert (stop.reason, stop.watchpoint) == (StopReason.WATCHPOINT, WATCHED)
    save = vm.processor.vmcb.save
    assert (save.rip, save.rflags, save.dr6) == (CODE + 1, FLAGS, DR6.FIXED)


def test_a_guest_that_goes_on_after_a_deadline_is_stopped_first(machine):
    vm = machine(NOP, Outcome.DEADLINE, trap())
    assert vm.run(1.0).reason is StopReason.TIMEOUT
    assert vm.step().reason is StopReason.STEP
    assert vm.processor.commands == ["kick"]
