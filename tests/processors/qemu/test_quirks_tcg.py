import pytest

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, is_intercepted, set_intercept
from trapline.arch.vectors import FORCEABLE, Vector, bits
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.facts import MANUAL
from trapline.processors.qemu.layout import BY_PYTHON
from trapline.processors.qemu.quirks_tcg import TcgQuirks
from trapline.processors.qemu.software_interrupts import COMBINING

DE, BP, OF, UD, NM = Vector.DE, Vector.BP, Vector.OF, Vector.UD, Vector.NM
DF, NP, GP, PF = Vector.DF, Vector.NP, Vector.GP, Vector.PF
SEEN_BY_TCG = 1 << 0 | 0b11111 << 10
"""#DE, #TS, #NP, #SS, #GP and #PF: what combines, of the exceptions that TCG raises."""
RIP = 0x200


def fault(vector, code=None):
    return Event(vector, EventType.EXCEPTION, code)


def soft(vector):
    return Event(vector, EventType.SOFT)


INTR, NMI = Event(0x20, EventType.INTR), Event(2, EventType.NMI)


class Cpu:
    """Plays the monitor and the TCG below it: what an entry would execute, and exits as TCG reports them."""

    def __init__(self, shared):
        self.shared = shared
        self.ram = ScriptedMemory(0x2000)
        self.tcg = TcgQuirks(shared, self.ram, MANUAL)
        self.vmcb, self.control, self.save = shared.vmcb, shared.vmcb.control, shared.vmcb.save
        self.save.rip = RIP

    def want(self, mask, *, int_n=False, stopping=False, watching=False):
        self.control.intercept_exceptions, self.control.intercept_misc1 = mask, 0
        if int_n:
            set_intercept(self.control, ExitCode.SWINT)
        self.tcg.note_intercepts()
        return self.tcg.write_intercepts(stopping=stopping, watching=watching)

    def code(self, text):
        self.ram.write(self.save.rip, bytes.fromhex(text))

    def enter(self, event=None):
        """Enter with an event of the hypervisor's; return what TCG gets to deliver."""
        self.control.event_inj = encode(event) if event else 0
        self.tcg.before_entry()
        self.tcg.entering()
        return self.event

    def exit(self, code, info_1=0, info_2=0, vectoring=None):
        self.control.exit_code, self.control.exit_info_1, self.control.exit_info_2 = code, info_1, info_2
        self.control.exit_int_info = encode(vectoring) if vectoring else 0
        self.control.intercept_exceptions = self.shared.mailbox.intercepts  # as the monitor does
        return self.tcg.after_exit()

    def raised(self, vector, info_1=0, info_2=0, vectoring=None):
        return self.exit(EXCEPTION_EXITS.start + vector, info_1, info_2, vectoring)

    def go_on(self):
        """Enter again after an exit that was none of the hypervisor's."""
        self.tcg.entering()

    @property
    def event(self):
        return decode(self.control.event_inj)

    @property
    def vectoring(self):
        return decode(self.control.exit_int_info)

    @property
    def armed(self):
        return self.control.intercept_exceptions & ~self.shared.mailbox.intercepts


@pytest.fixture
def cpu(shared):
    return Cpu(shared)


@pytest.mark.parametrize("mask", [0, 1 << UD, 1 << BP, 1 << OF, FORCEABLE])
def test_what_is_intercepted_besides_what_is_wanted(cpu, mask):
    unwanted = cpu.want(mask)
    assert unwanted == 0xFFFF_FFFF & ~mask
    assert cpu.control.intercept_exceptions == cpu.shared.mailbox.intercepts == mask | 1 << GP
    assert is_intercepted(cpu.control, ExitCode.NMI)
    assert is_intercepted(cpu.control, ExitCode.SWINT) == bool(mask & (1 << BP | 1 << OF))


def test_forced_exits_need_int3_and_watchpoints_every_event(cpu):
    cpu.want(1 << UD, stopping=True)
    assert is_intercepted(cpu.control, ExitCode.SWINT)
    assert not is_intercepted(cpu.control, ExitCode.INTR)
    assert cpu.want(1 << UD, stopping=True, watching=True) == 0xFFFF_FFFF & ~(1 << UD)
    assert cpu.control.intercept_exceptions == cpu.shared.mailbox.intercepts == FORCEABLE | 1 << GP
    assert is_intercepted(cpu.control, ExitCode.INTR)
    cpu.tcg.write_intercepts(stopping=False, watching=False)
    assert cpu.control.intercept_exceptions == 1 << UD | 1 << GP
    assert not is_intercepted(cpu.control, ExitCode.INTR)
    assert not is_intercepted(cpu.control, ExitCode.SWINT)


def test_a_software_interrupt_that_was_delivered_otherwise_is_forgotten(cpu):
    cpu.want(1 << UD)
    cpu.enter(soft(0x80))
    cpu.control.event_inj, cpu.save.rip = 0, 0x700  # the model of delivery did it
    cpu.go_on()
    cpu.raised(UD, vectoring=soft(0x80))
    assert cpu.save.rip == 0x700


def test_a_combining_event_arms_all_that_combine(cpu):
    for vector in bits(FORCEABLE & ~(1 << BP | 1 << OF)):
        cpu.want(1 << UD)
        cpu.enter(fault(vector))
        assert cpu.control.intercept_exceptions & SEEN_BY_TCG == (
            SEEN_BY_TCG if 1 << vector & (SEEN_BY_TCG | 1 << DF | 1 << 21) else 1 << GP
        )


@pytest.mark.parametrize("event", [INTR, NMI, fault(UD)])
def test_other_events_arm_nothing_and_pass_as_they_are(cpu, event):
    cpu.want(1 << UD)
    assert cpu.enter(event) == event
    assert cpu.armed == 0


def test_what_tcg_leaves_in_eventinj_is_no_event(cpu):
    cpu.want(1 << UD)
    cpu.control.event_inj = 0x5_0000_0B0E  # V is clear
    cpu.tcg.before_entry()
    assert cpu.control.event_inj == 0


def test_the_next_exit_knows_who_injected(cpu):
    cpu.want(1 << UD)
    cpu.enter(fault(PF, 2))
    assert cpu.shared.mailbox.injected == BY_PYTHON | encode(fault(PF, 2)) & 0xFFFF_FFFF
    cpu.enter()
    assert cpu.shared.mailbox.injected == BY_PYTHON


# INT3, INTO and INT n


@pytest.mark.parametrize(("code", "vector", "length"), [("cc", BP, 1), ("66cc", BP, 2), ("ce", OF, 1), ("3ece", OF, 2)])
def test_int3_and_into_become_exceptions(cpu, code, vector, length):
    cpu.want(1 << vector)
    cpu.code(code)
    assert cpu.exit(ExitCode.SWINT)
    assert cpu.control.exit_code == EXCEPTION_EXITS.start + vector
    assert (cpu.save.rip, cpu.control.nrip) == (RIP, RIP + length)


@pytest.mark.parametrize("vector", [BP, OF])
def test_a_trap_goes_back_with_its_gate_checked_and_rip_behind_it(cpu, vector):
    cpu.want(1 << vector)
    cpu.code("cc" if vector == BP else "ce")
    cpu.exit(ExitCode.SWINT)
    assert cpu.enter(fault(vector)) == soft(vector)  # type 3 would skip the check of the gate's DPL
    assert cpu.save.rip == RIP + 1


def test_rip_returns_to_a_trap_whose_delivery_failed(cpu):
    cpu.want(1 << BP | 1 << GP)
    cpu.code("cc")
    cpu.exit(ExitCode.SWINT)
    cpu.enter(fault(BP))
    assert cpu.raised(GP, 0x1A, vectoring=soft(BP))
    assert (cpu.save.rip, cpu.control.nrip) == (RIP, RIP + 1)
    assert cpu.vectoring == fault(BP)
    assert (cpu.control.exit_code, cpu.control.exit_info_1) == (0x4D, 0x1A)


@pytest.mark.parametrize("number", [0x03, 0x04, 0x0E, 0x20, 0x80, 0xFF])
def test_int_n_passes_silently(cpu, number):
    cpu.want(FORCEABLE)
    cpu.code(f"cd{number:02x}")
    assert not cpu.exit(ExitCode.SWINT)
    assert cpu.event == soft(number)
    assert cpu.save.rip == RIP + 2


@pytest.mark.parametrize("mask", [1 << BP, FORCEABLE])
def test_rip_returns_to_an_int_n_whose_delivery_failed(cpu, mask):
    cpu.want(mask | 1 << NP)
    cpu.code("cd80")
    cpu.exit(ExitCode.SWINT)
    cpu.go_on()
    assert cpu.raised(NP, 0x402, vectoring=soft(0x80))
    assert cpu.save.rip == RIP
    assert cpu.vectoring == soft(0x80)


def test_a_fault_in_the_delivery_of_int_n_is_seen_whatever_is_wanted(cpu):
    cpu.want(1 << BP)
    cpu.code("cd80")
    cpu.exit(ExitCode.SWINT)
    cpu.go_on()
    assert cpu.armed & SEEN_BY_TCG == SEEN_BY_TCG & ~(1 << GP)
    assert not cpu.raised(NP, 0x402, vectoring=soft(0x80))
    assert (cpu.save.rip, cpu.event) == (RIP, fault(NP, 0x402))


def test_a_trap_that_nobody_wants_passes_silently(cpu):
    cpu.want(1 << OF)
    cpu.code("cc")
    assert not cpu.exit(ExitCode.SWINT)
    assert (cpu.event, cpu.save.rip) == (soft(BP), RIP + 1)


def test_an_int_n_that_the_monitor_injected(cpu):
    """Its delivery fails: RIP returns to it, and the fault is seen."""
    cpu.want(1 << BP | 1 << NP)
    cpu.enter()
    cpu.shared.mailbox.injected, cpu.shared.mailbox.soft_rip = encode(soft(0x80)) & 0xFFFF_FFFF, RIP
    cpu.save.rip = RIP + 2
    assert cpu.raised(NP, 0x402, vectoring=soft(0x80))
    assert (cpu.vectoring, cpu.save.rip, cpu.control.nrip) == (soft(0x80), RIP, RIP + 2)


@pytest.mark.parametrize(
    ("options", "arm"),
    [({}, COMBINING), ({"int_n": True}, 0), ({"stopping": True}, 0), ({"watching": True, "stopping": True}, 0)],
)
def test_the_monitor_injects_int_n_unless_somebody_is_to_see_it(cpu, options, arm):
    cpu.want(1 << BP, **options)
    assert cpu.shared.mailbox.soft_arm == arm


def test_int_n_goes_to_a_hypervisor_that_asks_for_it(cpu):
    cpu.want(1 << BP, int_n=True)
    cpu.code("cd21")
    assert cpu.exit(ExitCode.SWINT)
    assert (cpu.control.exit_code, cpu.control.exit_info_1) == (ExitCode.SWINT, 0x21)
    assert (cpu.save.rip, cpu.control.nrip) == (RIP, RIP + 2)
    assert cpu.enter(soft(0x21)) == soft(0x21)
    assert cpu.save.rip == RIP + 2


def test_rip_stays_when_another_event_was_being_delivered(cpu):
    cpu.want(FORCEABLE)
    cpu.code("cc")
    cpu.exit(ExitCode.SWINT)
    cpu.enter(fault(BP))
    cpu.save.rip = 0x700  # the handler ran
    assert cpu.raised(NP, 0x103, vectoring=fault(0x20))
    assert cpu.save.rip == 0x700
    assert cpu.vectoring == INTR


# EXITINTINFO


@pytest.mark.parametrize(
    ("injected", "reported", "true"),
    [
        (None, fault(0x20), INTR),
        (None, fault(0xFF), Event(0xFF, EventType.INTR)),
        (None, fault(2), NMI),
        (None, fault(8), Event(8, EventType.INTR)),  # a PIC that the BIOS left at 8
        (None, fault(13), Event(13, EventType.INTR)),  # an exception would have exited before its delivery
        (NMI, fault(2), NMI),
        (fault(8, 0), fault(8, 0), fault(8, 0)),
        (fault(13, 0), fault(13, 0), fault(13, 0)),
        (fault(14, 0), fault(13), Event(13, EventType.INTR)),
        (None, soft(0x80), soft(0x80)),
    ],
)
def test_the_types_of_interrupts_are_mended(cpu, injected, reported, true):
    cpu.want(FORCEABLE)
    cpu.enter(injected)
    assert cpu.raised(NP, 2, vectoring=reported)
    assert cpu.vectoring == true


def test_an_exception_that_nobody_intercepts_is_no_interrupt(cpu):
    cpu.want(SEEN_BY_TCG)
    cpu.enter()
    assert cpu.raised(NP, 2, vectoring=fault(UD))
    assert cpu.vectoring == fault(UD)


def test_a_double_fault_that_was_not_injected_is_an_interrupt_under_any_mask(cpu):
    cpu.want(SEEN_BY_TCG)
    cpu.enter()
    assert cpu.raised(NP, 2, vectoring=fault(DF))
    assert cpu.vectoring == Event(8, EventType.INTR)


def test_an_injection_of_the_monitor_counts(cpu):
    cpu.want(FORCEABLE)
    cpu.enter()
    cpu.shared.mailbox.injected = encode(fault(PF, 2)) & 0xFFFF_FFFF
    assert cpu.raised(NP, 2, vectoring=fault(PF, 2))
    assert cpu.vectoring == fault(PF, 2)


def test_nothing_being_delivered_stays_nothing(cpu):
    cpu.want(FORCEABLE)
    cpu.enter()
    assert cpu.raised(UD)
    assert cpu.vectoring is None
    cpu.control.exit_code, cpu.control.exit_int_info = 0x46, 0x0B0E  # V is clear
    assert cpu.tcg.after_exit()
    assert cpu.vectoring is None


@pytest.mark.parametrize("vectoring", [fault(UD), fault(0x20), fault(2)])
def test_a_delivery_that_may_hide_another_is_repeated_in_full_view(cpu, vectoring):
    cpu.want(1 << NM)
    cpu.enter()
    assert not cpu.raised(NM, vectoring=vectoring)
    true = {UD: fault(UD), 0x20: INTR, 2: NMI}[vectoring.vector]
    assert cpu.event == true
    assert cpu.armed & SEEN_BY_TCG == SEEN_BY_TCG & ~(1 << GP)
    cpu.go_on()
    assert not cpu.raised(NP, 0x33, vectoring=vectoring)  # what was hidden the first time
    assert cpu.event == fault(NP, 0x33)


def test_an_int_n_that_may_hide_another_executes_again(cpu):
    cpu.want(1 << NM)
    cpu.enter()
    assert not cpu.raised(NM, vectoring=soft(0x80))
    assert cpu.event is None
    assert cpu.armed


def test_what_was_armed_before_the_last_entry_no_longer_counts(cpu):
    cpu.want(1 << NM)
    cpu.enter(fault(PF, 0))
    assert not cpu.exit(ExitCode.NMI)
    cpu.go_on()
    assert not cpu.raised(NM, vectoring=fault(UD))
    assert cpu.event == fault(UD)


def test_other_intercepts_keep_what_is_armed_for_an_injection_that_waits(cpu):
    """Of several CPUs one may be stopped for a change between its exit and its entry."""
    cpu.want(0)
    cpu.enter(fault(UD))
    assert not cpu.raised(GP, 0x62, vectoring=fault(DE))
    cpu.go_on()
    assert not cpu.raised(GP, 0x62, vectoring=fault(DE))
    armed = cpu.control.intercept_exceptions
    cpu.want(1 << NM)
    assert cpu.control.intercept_exceptions == armed | 1 << NM
    assert cpu.shared.mailbox.intercepts == 1 << NM | 1 << GP
    cpu.go_on()
    cpu.want(0)
    assert cpu.control.intercept_exceptions == cpu.shared.mailbox.intercepts == 1 << GP


def test_after_an_injection_of_the_monitors_only_its_own_arming_counts(cpu):
    cpu.want(1 << NM)
    cpu.enter(fault(PF, 0))
    cpu.shared.mailbox.injected = encode(fault(NM)) & 0xFFFF_FFFF
    assert not cpu.raised(NM, vectoring=fault(NM))
    assert cpu.event == fault(NM)  # repeated: #NM armed nothing, whatever #PF did before it


def test_after_an_exit_that_the_monitor_handled_nothing_was_injected_or_armed(cpu):
    cpu.want(0)
    cpu.enter(fault(DF, 0))
    cpu.shared.mailbox.injected = 0
    assert not cpu.raised(GP, 0x33, vectoring=fault(DE))
    assert (cpu.event, cpu.vectoring) == (fault(DE), fault(DE))  # repeated, with all that combine intercepted
    cpu.go_on()
    assert not cpu.raised(GP, 0x33, vectoring=fault(DE))
    assert cpu.event == fault(DF, 0)


@pytest.mark.parametrize("mask", [SEEN_BY_TCG, FORCEABLE])
def test_nothing_is_repeated_while_everything_is_seen(cpu, mask):
    cpu.want(mask)
    cpu.enter()
    assert cpu.raised(NP, 2, vectoring=fault(0x20))


# Exceptions that the hypervisor did not ask for


@pytest.mark.parametrize(
    ("vector", "info_1", "event"),
    [(GP, 0x18, fault(GP, 0x18)), (NP, 0x402, fault(NP, 0x402)), (DE, 7, fault(DE))],
)
def test_an_unwanted_exception_goes_back_silently(cpu, vector, info_1, event):
    cpu.want(1 << UD)
    cpu.enter(fault(NP, 1))
    assert not cpu.raised(vector, info_1)
    assert cpu.event == event
    assert cpu.armed | cpu.shared.mailbox.intercepts == COMBINING | 1 << UD


def test_an_unwanted_page_fault_writes_cr2(cpu):
    cpu.want(1 << UD)
    cpu.enter(fault(NP, 1))
    assert not cpu.raised(PF, 6, 0xCAFE)
    assert (cpu.event, cpu.save.cr2) == (fault(PF, 6), 0xCAFE)


def test_a_wanted_page_fault_leaves_cr2_to_the_hypervisor(cpu):
    cpu.want(1 << PF)
    cpu.enter()
    assert cpu.raised(PF, 6, 0xCAFE)
    assert cpu.save.cr2 == 0


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        (fault(GP, 0), NP, fault(DF, 0)),
        (fault(DE), GP, fault(DF, 0)),
        (fault(GP, 0), PF, fault(PF, 0x1A)),
        (fault(PF, 0), PF, fault(DF, 0)),
    ],
)
def test_unwanted_exceptions_combine(cpu, first, second, result):
    cpu.want(1 << UD)
    cpu.enter(first)
    assert not cpu.raised(second, 0x1A, 0xCAFE, vectoring=first)
    assert cpu.event == result
    assert cpu.save.cr2 == (0xCAFE if second == PF else 0)
    assert cpu.armed


def test_a_double_fault_that_is_wanted_is_shown(cpu):
    cpu.want(1 << UD | 1 << DF)
    cpu.enter(fault(GP, 0))
    assert cpu.raised(NP, 0x1A, vectoring=fault(GP, 0))
    assert (cpu.control.exit_code, cpu.control.exit_info_1) == (0x48, 0)


def test_a_fault_after_a_double_fault_is_a_shutdown(cpu):
    cpu.want(1 << UD)
    cpu.enter(fault(DF, 0))
    assert cpu.raised(GP, 2, vectoring=fault(DF, 0))
    assert cpu.control.exit_code == ExitCode.SHUTDOWN


# Other departures


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("code", ["0f01d8", "0f01d9", "0f01da", "0f01db", "0f01dc", "0f01dd", "0f01de", "0f01df"])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_protection_fault_of_an_svm_instruction_is_a_ud(cpu, code, cpl, wanted):
    cpu.want(1 << UD if wanted else 0)
    cpu.code(code)
    cpu.save.cpl = cpl
    assert cpu.raised(GP) is wanted
    if wanted:
        assert cpu.control.exit_code == 0x46
    else:
        assert cpu.event == fault(UD)


@pytest.mark.parametrize(
    ("code", "info_1", "vectoring"), [("f4", 0, None), ("0f01d8", 0x18, None), ("0f01d8", 0, fault(0x20))]
)
def test_other_protection_faults_stay(cpu, code, info_1, vectoring):
    cpu.want(SEEN_BY_TCG)
    cpu.code(code)
    cpu.save.cpl = 3
    cpu.enter()
    assert cpu.raised(GP, info_1, vectoring=vectoring)
    assert cpu.control.exit_code == 0x4D


@pytest.mark.parametrize("invalid", [0xFFFF_FFFF, ExitCode.INVALID])
@pytest.mark.parametrize(("code", "mask", "wanted"), [("0f22e0", 1 << GP, True), ("0f22d8", 0, False)])
def test_reserved_bits_in_a_control_register_are_a_protection_fault(cpu, code, mask, wanted, invalid):
    cpu.want(mask)
    cpu.code(code)
    assert cpu.exit(invalid, info_1=0x55) is wanted
    if wanted:
        assert (cpu.control.exit_code, cpu.control.exit_info_1) == (0x4D, 0)
    else:
        assert cpu.event == fault(GP, 0)


@pytest.mark.parametrize("invalid", [0xFFFF_FFFF, ExitCode.INVALID])
def test_a_vmcb_that_is_refused_is_shown_as_the_manual_says(cpu, invalid):
    cpu.want(FORCEABLE)
    cpu.code("90")
    assert cpu.exit(invalid)
    assert cpu.control.exit_code == ExitCode.INVALID


@pytest.mark.parametrize(
    ("exit_code", "code", "length"),
    [(ExitCode.MSR, "0f32", 2), (ExitCode.CPUID, "660fa2", 3), (ExitCode.ICEBP, "f1", 1)],
)
def test_emulated_instructions_get_their_nrip(cpu, exit_code, code, length):
    cpu.want(0)
    cpu.code(code)
    assert cpu.exit(exit_code)
    assert (cpu.save.rip, cpu.control.nrip) == (RIP, RIP + length)


@pytest.mark.parametrize("exit_code", [ExitCode.SHUTDOWN, ExitCode.VMRUN, 0x400])
def test_all_other_exits_are_the_hypervisors(cpu, exit_code):
    cpu.want(0)
    assert cpu.exit(exit_code)
    assert cpu.control.exit_code == exit_code


def test_the_guest_takes_its_own_nmi(cpu):
    cpu.want(0)
    watched = lambda: [is_intercepted(cpu.control, code) for code in (ExitCode.NMI, ExitCode.IRET)]  # noqa: E731
    assert watched() == [True, False]
    assert not cpu.exit(ExitCode.NMI)
    assert watched() == [False, True]  # it is pending: the CPU delivers it now, and holds others back
    assert not cpu.exit(ExitCode.IRET)
    assert watched() == [True, False]
    assert cpu.event is None


def test_an_nmi_of_ours_stops_the_guest(cpu):
    cpu.want(0)
    cpu.tcg.nmis.foreign = True
    assert cpu.exit(ExitCode.NMI)
    assert cpu.control.exit_code == ExitCode.NMI
    assert is_intercepted(cpu.control, ExitCode.NMI)
