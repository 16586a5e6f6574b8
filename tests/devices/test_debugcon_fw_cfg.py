"""The debug console and the firmware configuration."""

import pytest

from trapline.devices.machine import BareMachine


def read_item(pc, key, size):
    pc.machine.port_write(0x510, 2, key)
    return bytes(pc.inb(0x511) for _ in range(size))


def test_the_debug_console_says_that_it_is_there_and_puts_out(pc):
    assert pc.inb(0xE9) == 0xE9
    for letter in b"hi":
        pc.outb(0xE9, letter)
    assert pc.debugged == b"hi"
    assert pc.written == b""


def test_without_a_place_of_its_own_the_debug_console_shares_the_serial_ports():
    written = bytearray()
    machine = BareMachine(1 << 20, output=written.extend, clock=lambda: 0)
    machine.port_write(0x3F8, 1, ord("a"))
    machine.port_write(0xE9, 1, ord("b"))
    assert written == b"ab"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (0x00, b"QEMU\0\0"),
        (0x01, b"\x01\0\0\0"),
        (0x03, (5 << 30).to_bytes(8, "little")),
        (0x05, b"\x03\0"),
        (0x0F, b"\x03\0"),
        (0x19, b"\0\0\0\0"),
        (0x11, bytes(8)),
        (0x8000, bytes(4)),
    ],
)
def test_items_of_the_firmware_configuration(build, key, expected):
    assert read_item(build(5 << 30, cpus=3), key, len(expected)) == expected


def test_selecting_starts_an_item_again_and_writing_data_changes_nothing(pc):
    assert read_item(pc, 0, 2) == b"QE"
    pc.outb(0x511, 0x55)
    assert read_item(pc, 0, 4) == b"QEMU"


def test_a_byte_does_not_select_and_the_selector_cannot_be_read(pc):
    pc.machine.port_write(0x510, 2, 0x05)
    pc.outb(0x510, 0)
    assert pc.inb(0x511) == 1
    assert pc.inb(0x510) == 0xFF
    assert pc.machine.port_read(0x510, 2) == 0xFFFF


def test_a_reset_selects_the_signature(pc):
    pc.machine.port_write(0x510, 2, 0x05)
    pc.machine.reset()
    assert pc.inb(0x511) == ord("Q")
