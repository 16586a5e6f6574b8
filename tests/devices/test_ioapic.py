"""The I/O APIC with the local APIC behind it."""

import pytest

LEVEL, REMOTE_IRR, MASKED = 1 << 15, 1 << 14, 1 << 16


@pytest.fixture
def apic(pc):
    pc.outb(0x21, 0xFF)
    pc.outb(0xA1, 0xFF)
    return pc


def raise_com1(pc, level):
    """COM1 holds IRQ 4 high while its transmitter has something to say."""
    if level:
        pc.outb(0x3F9, 2)
    else:
        pc.outb(0x3F9, 0)


def test_the_registers_that_identify_it(apic):
    assert apic.ioapic(0x01) == 0x00170020
    apic.ioapic(0x01, 0)
    assert apic.ioapic(0x01) == 0x00170020
    apic.ioapic(0x00, 0xFF000000)
    assert (apic.ioapic(0x00), apic.ioapic(0x02)) == (0x0F000000, 0x0F000000)
    assert apic.machine.mmio_read(0xFEC00000, 4) == 0x02
    assert apic.machine.mmio_read(0xFEC00020, 4) == 0
    assert apic.ioapic(0x40) == 0
    assert apic.ioapic(0x03) == 0
    apic.ioapic(0x40, 1)
    apic.machine.mmio_write(0xFEC00020, 4, 1)
    apic.machine.mmio_write(0xFEC00010, 1, 1)


def test_entries_start_masked_and_keep_what_is_written(apic):
    assert [apic.ioapic(0x10 + 2 * pin) for pin in range(24)] == [MASKED] * 24
    apic.redirect(23, 0xAB00_0000_0001_FFFF)
    assert apic.ioapic(0x3E) == 0x1AFFF
    assert apic.ioapic(0x3F) == 0xAB000000


def test_the_timer_arrives_at_input_2(apic):
    apic.redirect(2, 0x30)
    assert apic.machine.next_event() is not None
    apic.wait(60_000_000)
    assert apic.interrupts() == [0x30]


def test_a_masked_edge_is_lost(apic):
    raise_com1(apic, True)
    apic.redirect(4, 0x34)
    assert apic.interrupts() == []
    raise_com1(apic, False)
    raise_com1(apic, True)
    assert apic.interrupts() == [0x34]
    assert apic.interrupts() == []


def test_a_level_comes_back_until_it_falls(apic):
    apic.redirect(4, LEVEL | 0x34)
    raise_com1(apic, True)
    assert apic.ioapic(0x18) == LEVEL | REMOTE_IRR | 0x34
    assert apic.machine.cpus[0].acknowledge() == 0x34
    assert apic.lapic(0x190) == 1 << 0x34 - 32
    assert apic.machine.cpus[0].pending() is None
    apic.lapic(0xB0, 0)
    assert apic.machine.cpus[0].acknowledge() == 0x34
    raise_com1(apic, False)
    apic.lapic(0xB0, 0)
    assert apic.machine.cpus[0].pending() is None
    assert apic.ioapic(0x18) == LEVEL | 0x34


def test_a_masked_level_waits(apic):
    apic.redirect(4, MASKED | LEVEL | 0x34)
    raise_com1(apic, True)
    assert apic.machine.cpus[0].pending() is None
    apic.redirect(4, LEVEL | 0x34)
    assert apic.machine.cpus[0].pending() == 0x34


def test_changing_the_destination_does_not_end_the_interrupt(apic):
    apic.redirect(4, LEVEL | 0x34)
    raise_com1(apic, True)
    apic.ioapic(0x19, 1 << 24)
    assert apic.ioapic(0x18) & REMOTE_IRR


def test_turning_an_entry_to_edge_and_back_ends_the_interrupt(apic):
    apic.redirect(4, LEVEL | 0x34)
    raise_com1(apic, True)
    assert apic.machine.cpus[0].acknowledge() == 0x34
    raise_com1(apic, False)
    apic.ioapic(0x18, MASKED | 0x34)
    apic.ioapic(0x18, LEVEL | 0x34)
    assert apic.ioapic(0x18) == LEVEL | 0x34


def test_the_eoi_register_ends_one_vector(apic):
    apic.redirect(4, LEVEL | 0x34)
    raise_com1(apic, True)
    raise_com1(apic, False)
    apic.machine.mmio_write(0xFEC00040, 4, 0x35)
    assert apic.ioapic(0x18) & REMOTE_IRR
    apic.machine.mmio_write(0xFEC00040, 4, 0x34)
    assert not apic.ioapic(0x18) & REMOTE_IRR


@pytest.mark.parametrize(
    ("entry", "vector"),
    [
        (0x0034, 0x34),
        (0x0134, 0x34),
        (0x0934, None),
        (0x0734, None),
        (0x0134 | 1 << 56, None),
        (0xFF << 56 | 0x35, 0x35),
    ],
)
def test_destinations_and_modes(apic, entry, vector):
    apic.redirect(4, entry)
    raise_com1(apic, True)
    assert apic.machine.cpus[0].pending() == vector


def test_an_nmi(apic):
    apic.redirect(4, 0x400)
    raise_com1(apic, True)
    assert apic.machine.cpus[0].nmi_pending()
