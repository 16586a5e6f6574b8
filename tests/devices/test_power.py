"""How a guest ends or resets its machine."""

import pytest

from trapline.devices.power import Action


def test_port_92_is_a20_and_the_fast_reset(pc):
    assert pc.inb(0x92) == 0x02
    pc.outb(0x92, 0x00)
    assert not pc.machine.a20
    pc.outb(0x92, pc.inb(0x92) | 2)
    assert pc.machine.a20
    assert pc.machine.request is None
    pc.outb(0x92, pc.inb(0x92) | 1)
    assert pc.machine.request.action is Action.RESET
    pc.machine.reset()
    assert pc.inb(0x92) == 0x02
    assert pc.machine.request is None


def test_port_cf9_resets_by_bit_2(pc):
    pc.outb(0xCF9, 2)
    assert pc.inb(0xCF9) == 2
    assert pc.machine.request is None
    pc.outb(0xCF9, 6)
    assert pc.machine.request.action is Action.RESET
    assert "0xcf9" in pc.machine.request.cause


@pytest.mark.parametrize(
    ("port", "size", "value", "status"),
    [(0xF4, 1, 0x10, 0x21), (0xF4, 4, 0, 1), (0xF4, 2, 0x7F, 0xFF), (0xF5, 1, 3, 7), (0xF4, 4, 0xFFFFFFFF, 0xFF)],
)
def test_the_debug_exit(pc, port, size, value, status):
    assert pc.machine.port_read(port, size) == 0
    pc.machine.port_write(port, size, value)
    assert pc.machine.request == (Action.EXIT, f"port {port:#x}", status)


def test_the_first_request_counts(pc):
    pc.outb(0xF4, 1)
    pc.outb(0xCF9, 6)
    pc.outb(0xF4, 2)
    assert pc.machine.request.status == 3


@pytest.mark.parametrize("port", [0x604, 0xB004])
def test_acpi_switches_off(pc, port):
    pc.machine.port_write(port, 2, 0x0001)
    assert pc.machine.port_read(port, 2) == 0x0001
    pc.machine.port_write(port, 2, 0x2400)  # suspend to RAM, which is not here
    assert pc.machine.port_read(port, 2) == 0x0400
    assert pc.machine.request is None
    pc.machine.port_write(port, 2, 0x2000)
    assert pc.machine.request.action is Action.POWER_OFF


def test_acpi_switches_off_by_one_byte_too(pc):
    pc.outb(0x604, 0x01)
    pc.outb(0x605, 0x20)
    assert pc.machine.port_read(0x604, 2) == 0x0001
    assert pc.machine.request.action is Action.POWER_OFF


def test_the_word_of_bochs(pc):
    assert pc.inb(0x8900) == 0xFF
    for letter in b"ShutShutdow":
        pc.outb(0x8900, letter)
    assert pc.machine.request is None
    pc.outb(0x8900, ord("n"))
    assert pc.machine.request.action is Action.POWER_OFF
