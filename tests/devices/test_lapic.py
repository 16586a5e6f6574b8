"""The local APIC, by the sequences of kvm-unit-tests and Linux."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

ID, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR, ICR2 = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVTT, LINT0, LINT1, LVTERR, TMICT, TMCCT, TDCR = 0x320, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3E0
MASKED = 1 << 16
PERIODIC = 1 << 17
SELF = 1 << 18


@pytest.fixture
def apic(pc):
    """With the PICs masked, as kvm-unit-tests do it."""
    pc.outb(0x21, 0xFF)
    pc.outb(0xA1, 0xFF)
    pc.lapic(SVR, 0x1FF)
    return pc


def bits(pc, register):
    return sum(pc.lapic(register + 16 * word) << 32 * word for word in range(8))


def test_the_registers_that_identify_it(apic):
    assert apic.machine.cpus[0].apic_base == 0xFEE00900
    assert apic.lapic(ID) == 0
    assert apic.lapic(0x30) == 0x00050014
    apic.lapic(ID, 0x05000000)
    assert apic.lapic(ID) == 0x05000000
    apic.lapic(0x30, 0)
    assert apic.lapic(0x30) == 0x00050014
    assert (apic.lapic(0x90), apic.lapic(EOI), apic.lapic(ESR)) == (0, 0, 0)


def test_firmware_leaves_virtual_wire_mode(pc):
    assert pc.lapic(SVR) == 0x1FF
    assert pc.lapic(LINT0) == 0x8700
    assert pc.lapic(LINT1) == 0x8400
    assert [pc.lapic(register) for register in (LVTT, 0x330, 0x340, LVTERR)] == [MASKED] * 4
    assert pc.lapic(DFR) == 0xFFFFFFFF


def test_a_self_ipi_is_requested_served_and_ended(apic):
    apic.lapic(ICR, SELF | 0x41)
    assert bits(apic, IRR) == 1 << 0x41
    assert apic.machine.cpus[0].pending() == 0x41
    assert apic.machine.cpus[0].acknowledge() == 0x41
    assert (bits(apic, IRR), bits(apic, ISR), bits(apic, TMR)) == (0, 1 << 0x41, 0)
    assert apic.lapic(PPR) == 0x40
    apic.lapic(ICR, SELF | 0x4F)  # of the same class: waits
    assert apic.machine.cpus[0].pending() is None
    apic.lapic(ICR, SELF | 0x50)
    assert apic.machine.cpus[0].acknowledge() == 0x50
    apic.lapic(EOI, 0)
    assert bits(apic, ISR) == 1 << 0x41
    apic.lapic(EOI, 0)
    assert apic.machine.cpus[0].acknowledge() == 0x4F
    apic.lapic(EOI, 0)
    apic.lapic(EOI, 0)  # of nothing
    assert bits(apic, ISR) == 0


def test_the_task_priority_holds_back_its_class_and_below(apic):
    apic.lapic(ICR, SELF | 0x51)
    apic.machine.cpus[0].tpr = 0x50
    assert apic.lapic(TPR) == 0x50
    assert apic.lapic(PPR) == 0x50
    assert apic.machine.cpus[0].pending() is None
    assert apic.machine.cpus[0].acknowledge() == 0xFF  # spurious
    assert bits(apic, ISR) == 0
    apic.lapic(TPR, 0x4F)
    assert apic.machine.cpus[0].tpr == 0x4F
    assert apic.machine.cpus[0].pending() == 0x51
    apic.machine.cpus[0].acknowledge()
    assert apic.lapic(PPR) == 0x50


@pytest.mark.parametrize(
    ("command", "destination", "arrives"),
    [
        (0x00000041, 0x00, True),
        (0x00000041, 0xFF, True),
        (0x00000041, 0x01, False),
        (0x00000141, 0x00, True),
        (0x00040041, 0x07, True),
        (0x00080041, 0x07, True),
        (0x000C0041, 0x00, False),
        (0x00000841, 0x04, True),
        (0x00000841, 0x03, False),
        (0x00000641, 0x00, False),
        (0x00000241, 0x00, False),
    ],
)
def test_where_a_command_goes(apic, command, destination, arrives):
    apic.lapic(LDR, 0x04000000)
    apic.lapic(ICR2, destination << 24)
    apic.lapic(ICR, command)
    assert apic.machine.cpus[0].pending() == (0x41 if arrives else None)
    assert apic.lapic(ICR) == command
    assert apic.lapic(ICR2) == destination << 24
    assert apic.lapic(LDR) == 0x04000000


@pytest.mark.parametrize(("destination", "arrives"), [(0x24, True), (0xF4, True), (0x34, False), (0x22, False)])
def test_clusters(apic, destination, arrives):
    apic.lapic(DFR, 0x0FFFFFFF)
    assert apic.lapic(DFR) == 0x0FFFFFFF
    apic.lapic(LDR, 0x24000000)
    apic.lapic(ICR2, destination << 24)
    apic.lapic(ICR, 0x841)
    assert (apic.machine.cpus[0].pending() is not None) == arrives


def test_an_nmi_to_itself_waits_until_it_is_taken(apic):
    assert not apic.machine.cpus[0].nmi_pending()
    apic.lapic(ICR2, 0)
    apic.lapic(ICR, 0x4400)
    assert apic.machine.cpus[0].nmi_pending()
    assert apic.machine.cpus[0].pending() is None
    apic.machine.cpus[0].take_nmi()
    assert not apic.machine.cpus[0].nmi_pending()


def test_absent_processors_can_be_called(apic):
    apic.lapic(ICR, 0x000C4500)
    apic.lapic(ICR, 0x000C4608)
    apic.lapic(ICR2, 1 << 24)
    apic.lapic(ICR, 0x4500)
    apic.lapic(ICR, 0x4608)
    apic.lapic(ICR2, 0)
    apic.lapic(ICR, 0x8500)  # the level de-assert
    assert apic.machine.request is None
    apic.lapic(ICR, 0x4500)
    assert apic.machine.request.action.value == "reset"


def test_errors_are_latched_by_a_write_and_interrupt_once(apic):
    apic.lapic(LVTERR, 0xE1)
    apic.lapic(ICR, SELF | 0x0F)
    assert apic.interrupts() == [0xE1]
    apic.lapic(ICR, SELF | 0x0E)
    assert apic.interrupts() == []
    assert apic.lapic(ESR) == 0
    apic.lapic(ESR, 0)
    assert apic.lapic(ESR) == 0x20
    apic.lapic(ESR, 0)
    assert apic.lapic(ESR) == 0


@pytest.mark.parametrize(
    ("register", "value", "error"),
    [
        (0x40, None, 0x80),
        (0x3F0, None, 0x80),
        (0x3F0, 1, 0x80),
        (0x30, 1, 0),
        (ISR, 1, 0),
        (TMCCT, 1, 0),
        (PPR, None, 0),
    ],
)
def test_what_is_no_register_is_an_error_and_what_is_read_only_is_not(apic, register, value, error):
    apic.lapic(register, value)
    apic.lapic(ESR, 0)
    assert apic.lapic(ESR) == error


def test_an_error_in_the_vector_of_the_error_interrupt_ends(apic):
    apic.lapic(LVTERR, 0x03)
    apic.lapic(ICR, SELF)
    apic.lapic(ESR, 0)
    assert apic.lapic(ESR) == 0x60
    assert apic.interrupts() == []


def test_switched_off_it_masks_its_entries_and_takes_nothing(apic):
    apic.lapic(LVTT, 0x40)
    apic.lapic(ICR, SELF | 0x41)
    apic.lapic(SVR, 0x0FF)
    assert apic.lapic(LVTT) == MASKED | 0x40
    assert apic.lapic(LINT0) == MASKED | 0x8700
    apic.lapic(LVTT, 0x40)
    assert apic.lapic(LVTT) == MASKED | 0x40
    apic.lapic(ICR, SELF | 0x42)
    assert apic.machine.cpus[0].pending() is None
    apic.lapic(SVR, 0xFFFFF1FF)
    assert apic.lapic(SVR) == 0x1FF
    assert apic.interrupts() == [0x41]
    apic.lapic(LVTT, 0xFFFFFFFF)
    assert apic.lapic(LVTT) == 0x300FF


def test_the_pics_pass_through_lint0_before_everything(pc):
    pc.init_pics(masks=(0xFE, 0xFF))
    pc.wait(60_000_000)
    pc.lapic(ICR, SELF | 0xF1)
    pc.lapic(TPR, 0xFF)
    assert pc.machine.cpus[0].pending() == 0x20  # ExtINT has no priority
    pc.lapic(LINT0, MASKED | 0x700)
    assert pc.machine.cpus[0].pending() is None
    assert pc.machine.next_event() is None
    pc.lapic(TPR, 0)
    assert pc.machine.cpus[0].acknowledge() == 0xF1
    pc.lapic(EOI, 0)
    pc.lapic(LINT0, 0x700)
    assert pc.machine.cpus[0].acknowledge() == 0x20


def test_lint0_can_be_an_interrupt_of_its_own_or_an_nmi(pc):
    pc.init_pics(masks=(0xEF, 0xFF))
    pc.lapic(LINT0, 0x33)
    pc.outb(0x3F9, 2)
    assert pc.machine.cpus[0].acknowledge() == 0x33
    pc.outb(0x3F9, 0)
    pc.outb(0x20, 0x0C)
    pc.inb(0x20)  # the poll of a kernel that does not get INTA
    pc.outb(0x20, 0x20)
    pc.lapic(LINT0, 0x400)
    pc.outb(0x3F9, 2)
    assert pc.machine.cpus[0].nmi_pending()
    assert pc.machine.cpus[0].pending() is None


def test_the_nmi_button(pc):
    pc.outb(0x70, 0x80)
    pc.machine.press_nmi()
    assert not pc.machine.cpus[0].nmi_pending()
    pc.outb(0x70, 0x00)
    pc.lapic(LINT1, MASKED | 0x400)
    pc.machine.press_nmi()
    assert not pc.machine.cpus[0].nmi_pending()
    pc.lapic(LINT1, 0x200)  # SMI, which this machine has none of
    pc.machine.press_nmi()
    assert not pc.machine.cpus[0].nmi_pending()
    pc.lapic(LINT1, 0x400)
    pc.machine.press_nmi()
    assert pc.machine.cpus[0].nmi_pending()


@pytest.mark.parametrize(
    ("code", "divisor"), [(0x0, 2), (0x1, 4), (0x2, 8), (0x3, 16), (0x8, 32), (0x9, 64), (0xA, 128), (0xB, 1)]
)
def test_the_timer_counts_a_gigahertz_divided(apic, code, divisor):
    apic.lapic(TDCR, 0xFFFFFFF4 | code)
    assert apic.lapic(TDCR) == code
    apic.lapic(LVTT, 0x40)
    apic.lapic(TMICT, 1000)
    assert apic.machine.next_event() == 1000 * divisor
    apic.wait(400 * divisor)
    assert apic.lapic(TMCCT) == 600
    apic.wait(600 * divisor - 1)
    assert apic.lapic(TMCCT) == 1
    assert apic.interrupts() == []
    apic.wait(1)
    assert apic.lapic(TMCCT) == 0
    assert apic.lapic(TMICT) == 1000
    assert apic.interrupts() == [0x40]
    assert apic.machine.next_event() is None


def test_a_late_periodic_timer_interrupts_once_and_keeps_its_phase(apic):
    apic.lapic(TDCR, 0xB)
    apic.lapic(LVTT, PERIODIC | 0x40)
    apic.lapic(TMICT, 1000)
    apic.wait(3500)
    assert apic.interrupts() == [0x40]
    assert apic.lapic(TMCCT) == 500
    assert apic.machine.next_event() == 4000
    apic.wait(500)
    assert apic.interrupts() == [0x40]
    apic.lapic(TMICT, 0)
    assert apic.machine.next_event() is None
    assert apic.lapic(TMCCT) == 0


def test_a_masked_timer_counts_and_is_silent(apic):
    apic.lapic(LVTT, MASKED | 0x40)
    apic.lapic(TMICT, 1000)
    assert apic.machine.next_event() is None
    apic.wait(1000)
    assert apic.lapic(TMCCT) == 500
    apic.lapic(TMCCT, 7)  # cannot be written
    assert apic.lapic(TMCCT) == 500
    apic.wait(1000)
    assert apic.interrupts() == []


def test_the_mode_may_change_while_it_counts(apic):
    apic.lapic(TDCR, 0xB)
    apic.lapic(LVTT, PERIODIC | 0x40)
    apic.lapic(TMICT, 1000)
    apic.wait(1600)
    assert apic.lapic(TMCCT) == 400
    apic.lapic(LVTT, 0x40)  # one shot
    assert apic.lapic(TMCCT) == 400
    apic.wait(400)
    assert apic.lapic(TMCCT) == 0
    apic.lapic(LVTT, PERIODIC | 0x40)
    apic.wait(500)
    assert apic.lapic(TMCCT) == 0  # stands until it is started


def test_the_divisor_may_change_while_it_counts(apic):
    apic.lapic(TDCR, 0xB)
    apic.lapic(TMICT, 1000)
    apic.wait(400)
    apic.lapic(TDCR, 0x0)
    assert apic.lapic(TMCCT) == 600
    apic.wait(600)
    assert apic.lapic(TMCCT) == 300


def test_registers_are_whole_aligned_words(apic):
    read, write = apic.machine.mmio_read, apic.machine.mmio_write
    apic.lapic(ID, 0x12000000)
    assert read(0xFEE00023, 1) == 0x12
    assert read(0xFEE00022, 2) == 0x1200
    assert read(0xFEE00020, 8) == 0x12000000
    assert read(0xFEE00024, 4) == 0
    write(0xFEE00020, 1, 0)
    write(0xFEE00024, 4, 0)
    assert apic.lapic(ID) == 0x12000000
    write(0xFEE00020, 8, 0x34000000)
    assert apic.lapic(ID) == 0x34000000


@given(st.lists(st.one_of(st.integers(16, 255), st.none(), st.just("eoi")), max_size=60), st.integers(0, 255))
def test_what_is_served_is_above_the_task_and_what_is_already_served(build, steps, tpr):
    pc = build()
    pc.outb(0x21, 0xFF)
    pc.lapic(TPR, tpr)
    requested, serving = set(), []
    for step in steps:
        if step is None:
            floor = max([tpr, *serving]) >> 4
            ready = [vector for vector in requested if vector >> 4 > floor]
            assert pc.machine.cpus[0].pending() == (max(ready) if ready else None)
            if ready:
                vector = pc.machine.cpus[0].acknowledge()
                requested.remove(vector)
                serving.append(vector)
        elif step == "eoi":
            pc.lapic(EOI, 0)
            serving = sorted(serving)[:-1]
        else:
            pc.lapic(ICR, SELF | step)
            requested.add(step)
        assert bits(pc, IRR) == sum(1 << vector for vector in requested)
        assert bits(pc, ISR) == sum(1 << vector for vector in serving)


@pytest.mark.parametrize(
    ("command", "destination", "told"),
    [
        (0xC4500, 0, True),
        (0xC4608, 0, True),
        (0x4500, 1, True),
        (0x4608, 1, True),
        (0x4608, 0, False),
        (0x8500, 1, False),
        (0xC8500, 0, False),
        (0xC0030, 0, False),
        (0x30, 1, False),
    ],
)
def test_another_cpu_is_told_to_be_absent(apic, command, destination, told):
    apic.lapic(ICR2, destination << 24)
    apic.lapic(ICR, command)
    text = "the guest sent an INIT or startup IPI to another CPU: its machine has one"
    assert apic.machine.hints == ([text] if told else [])
    assert apic.machine.request is None
