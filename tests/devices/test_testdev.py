"""The test device, as kvm-unit-tests use it."""

import pytest


def test_the_register_by_bytes_and_words(pc):
    read, write = pc.machine.port_read, pc.machine.port_write
    write(0xE0, 4, 0x12345678)
    assert read(0xE0, 4) == 0x12345678
    assert (read(0xE1, 1), read(0xE2, 2)) == (0x56, 0x1234)
    write(0xE2, 1, 0x99)
    write(0xE0, 2, 0xABCD)
    assert read(0xE0, 4) == 0x1299ABCD
    pc.machine.reset()
    assert read(0xE0, 4) == 0


def test_the_flush_port_takes_anything(pc):
    pc.machine.port_write(0xE4, 4, 0x1000)
    assert pc.machine.port_read(0xE4, 4) == 0
    assert pc.machine.port_read(0xE0, 4) == 0


def test_the_memory_at_its_ends(pc):
    read, write = pc.machine.mmio_read, pc.machine.mmio_write
    write(0xFF000000, 8, 0x1122334455667788)
    assert read(0xFF000002, 4) == 0x33445566
    write(0xFF00FFFE, 4, 0xAABBCCDD)
    assert read(0xFF00FFFE, 4) == 0xCCDD
    assert read(0xFF010000, 4) == 0xFFFFFFFF
    assert read(0xFF000000, 2) == 0x7788
    assert pc.machine.hints == []


@pytest.mark.parametrize("irq", [3, 5, 9, 14])
def test_an_edge_through_the_io_apic(pc, irq):
    pc.outb(0x21, 0xFF)
    pc.redirect(irq, 0x76)
    pc.outb(0x2000 + irq, 1)
    pc.outb(0x2000 + irq, 0)
    assert pc.interrupts() == [0x76]
    assert pc.inb(0x2000 + irq) == 0


def test_two_levels_of_which_the_higher_waits_as_in_the_test_of_the_io_apic(pc):
    pc.outb(0x21, 0xFF)
    pc.redirect(0x0E, 0x8000 | 0x61)
    pc.outb(0x200E, 1)
    assert pc.machine.cpus[0].acknowledge() == 0x61
    pc.lapic(0xB0, 0)
    assert pc.machine.cpus[0].acknowledge() == 0x61
    pc.outb(0x200E, 0)
    pc.lapic(0xB0, 0)
    assert pc.machine.cpus[0].pending() is None


def test_a_line_through_the_pics(pc):
    pc.init_pics(masks=(0xFB, 0xF7))
    pc.outb(0x200B, 1)
    assert pc.interrupts() == [0x2B]
    pc.outb(0x200B, 1)
    assert pc.interrupts() == []
