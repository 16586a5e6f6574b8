import pytest

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, is_intercepted, set_intercept
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.facts import MANUAL
from trapline.processors.qemu.quirks_kvm import KvmQuirks

RIP = 0x200
BP_EXIT, OF_EXIT, GP_EXIT = (EXCEPTION_EXITS.start + vector for vector in (Vector.BP, Vector.OF, Vector.GP))
DE = Event(Vector.DE, EventType.EXCEPTION)
BP, OF, INT_N = (
    Event(Vector.BP, EventType.EXCEPTION),
    Event(Vector.OF, EventType.EXCEPTION),
    Event(0x30, EventType.SOFT),
)
NMI = ExitCode.NMI


class Cpu:
    """Plays the monitor and the CPU under KVM."""

    def __init__(self, shared, *, saves_nrip):
        self.mailbox = shared.mailbox
        self.ram = ScriptedMemory(0x2000)
        self.kvm = KvmQuirks(shared, self.ram, MANUAL._replace(saves_nrip=saves_nrip))
        self.control, self.save = shared.vmcb.control, shared.vmcb.save
        self.save.rip = RIP
        self.kvm.note_intercepts()
        assert self.kvm.write_intercepts(stopping=False, watching=False) == 0

    def enter(self, event=None):
        self.control.event_inj = encode(event) if event else 0
        self.kvm.before_entry()
        self.kvm.entering()

    def monitor_injects(self, event, rflags):
        """What the fast path does: it sets RF."""
        self.mailbox.injected = encode(event) & 0xFFFF_FFFF
        self.mailbox.seen_rflags, self.save.rflags = rflags, rflags | RFLAGS.RF

    def exit(self, code, vectoring=None):
        self.control.exit_code = code
        self.control.exit_int_info = encode(vectoring) if vectoring else 0
        self.control.event_inj = 0
        return self.kvm.after_exit()

    def intercepts(self, code):
        return is_intercepted(self.control, code)


@pytest.fixture
def cpu(shared):
    return Cpu(shared, saves_nrip=True)


@pytest.fixture
def old(shared):
    return Cpu(shared, saves_nrip=False)


@pytest.mark.parametrize(
    ("code", "instruction", "length"),
    [
        (ExitCode.CPUID, "0fa2", 2),
        (ExitCode.MSR, "260f30", 3),
        (ExitCode.ICEBP, "f1", 1),
        (BP_EXIT, "cc", 1),
        (BP_EXIT, "26cc", 2),
        (OF_EXIT, "ce", 1),
        (ExitCode.SWINT, "cd30", 2),
    ],
)
def test_a_cpu_without_nrip_has_its_instructions_decoded(old, code, instruction, length):
    old.ram.write(RIP, bytes.fromhex(instruction))
    assert old.exit(code)
    assert old.control.nrip == RIP + length


def test_the_nrip_of_a_cpu_that_saves_it_is_its_own(cpu):
    cpu.ram.write(RIP, b"\x0f\xa2")
    for code in (ExitCode.CPUID, BP_EXIT, OF_EXIT, ExitCode.MSR):
        cpu.control.nrip = 0x1234
        assert cpu.exit(code)
        assert cpu.control.nrip == 0x1234


def test_int_n_is_told_by_its_instruction(cpu):
    cpu.ram.write(RIP, b"\xcd\x80")
    assert cpu.exit(ExitCode.SWINT)
    assert (cpu.control.exit_info_1, cpu.control.nrip) == (0x80, RIP + 2)


@pytest.mark.parametrize("event", [BP, OF, INT_N])
def test_without_nrip_the_frame_gets_the_rip_of_the_vmcb(old, event):
    old.control.nrip = RIP + 2
    old.enter(event)
    assert old.save.rip == RIP + 2
    injected = decode(old.control.event_inj)
    assert (injected.vector, injected.type) == (event.vector, EventType.SOFT)
    assert old.exit(GP_EXIT, vectoring=injected)
    assert old.save.rip == RIP
    assert decode(old.control.exit_int_info) == event


@pytest.mark.parametrize("event", [BP, OF, INT_N])
def test_with_nrip_nothing_is_changed(cpu, event):
    cpu.control.nrip = RIP + 2
    cpu.enter(event)
    assert cpu.save.rip == RIP
    assert decode(cpu.control.event_inj) == event
    assert cpu.exit(GP_EXIT, vectoring=event)
    assert (cpu.save.rip, decode(cpu.control.exit_int_info)) == (RIP, event)


@pytest.mark.parametrize("before", [RFLAGS.ALWAYS_ONE, RFLAGS.ALWAYS_ONE | RFLAGS.RF])
def test_rf_of_a_delivery_of_the_monitor_that_failed_is_as_it_was(cpu, before):
    cpu.monitor_injects(DE, before)
    assert cpu.exit(GP_EXIT, vectoring=DE)
    assert cpu.save.rflags == before


@pytest.mark.parametrize("vectoring", [None, Event(0x20, EventType.INTR), Event(Vector.UD, EventType.EXCEPTION)])
def test_rf_stays_where_something_else_is_delivered(cpu, vectoring):
    cpu.monitor_injects(DE, RFLAGS.ALWAYS_ONE)
    assert cpu.exit(GP_EXIT, vectoring=vectoring)
    assert cpu.save.rflags & RFLAGS.RF


def test_rf_of_the_hypervisors_own_injection_is_its_own(cpu):
    cpu.monitor_injects(DE, RFLAGS.ALWAYS_ONE)
    cpu.enter(DE)
    assert cpu.exit(GP_EXIT, vectoring=DE)
    assert cpu.save.rflags & RFLAGS.RF


def test_the_guest_takes_its_own_nmi(cpu):
    assert cpu.intercepts(NMI)
    assert not cpu.exit(NMI)
    assert (cpu.intercepts(NMI), cpu.intercepts(ExitCode.IRET)) == (False, True)
    assert not cpu.exit(ExitCode.IRET)
    assert (cpu.intercepts(NMI), cpu.intercepts(ExitCode.IRET)) == (True, False)


@pytest.mark.parametrize("foreign", [True, False])
def test_what_an_nmi_interrupts_is_delivered_later(cpu, foreign):
    cpu.kvm.nmis.foreign = foreign
    assert cpu.exit(NMI, vectoring=DE) is foreign
    assert decode(cpu.control.event_inj) == DE
    assert cpu.exit(NMI) is foreign
    assert decode(cpu.control.event_inj) is None


def test_an_int_n_that_an_nmi_interrupts_executes_again(old):
    old.control.nrip = RIP + 2
    old.enter(INT_N)
    assert not old.exit(NMI, vectoring=INT_N)
    assert (old.save.rip, decode(old.control.event_inj)) == (RIP, None)


def test_an_nmi_that_the_hypervisor_intercepts_is_shown_to_it(cpu):
    set_intercept(cpu.control, NMI)
    cpu.kvm.note_intercepts()
    assert cpu.exit(NMI)
    assert cpu.intercepts(NMI)
