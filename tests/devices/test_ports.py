"""The port bus: splitting, ports that nobody owns, and what the user is told about them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.devices.hints import MEMORY, PORTS, Hints, memory_hint, port_hint
from trapline.devices.ports import PortBus


class Device:
    def __init__(self):
        self.writes = []

    def read(self, port, size):
        return 0x11 * (port & 0xF) if size == 1 else -2

    def write(self, port, size, value):
        self.writes.append((port, size, value))


@pytest.fixture
def bus():
    return PortBus(Hints())


def test_a_wide_access_to_byte_registers_is_split_low_port_first(bus):
    device = Device()
    bus.claim(0x101, 3, device.read, device.write)
    assert bus.read(0x100, 4) == 0x332211FF
    bus.write(0x100, 4, 0x44332211)
    assert device.writes == [(0x101, 1, 0x22), (0x102, 1, 0x33), (0x103, 1, 0x44)]


def test_a_wide_register_takes_a_wide_access_as_one(bus):
    device = Device()
    bus.claim(0x100, 4, device.read, device.write, width=2)
    assert bus.read(0x100, 2) == 0xFFFE
    bus.write(0x100, 4, 0x44332211)
    assert device.writes == [(0x100, 2, 0x2211), (0x102, 2, 0x4433)]


def test_an_access_across_the_end_of_a_range_is_split(bus):
    device = Device()
    bus.claim(0x100, 4, device.read, device.write, width=4)
    bus.write(0x102, 4, 0x44332211)
    assert device.writes == [(0x102, 2, 0x2211)]


def test_a_port_has_one_owner(bus):
    device = Device()
    bus.claim(0x100, 4, device.read, device.write)
    with pytest.raises(ValueError, match="0x103"):
        bus.claim(0x103, 1, device.read, device.write)


def test_the_address_space_wraps_around(bus):
    device = Device()
    bus.claim(0, 1, device.read, device.write)
    assert bus.read(0xFFFF, 2) == 0x00FF
    bus.write(0xFFFF, 2, 0x1234)
    assert device.writes == [(0, 1, 0x12)]


@pytest.mark.parametrize(
    ("port", "name"),
    [
        (0x1F0, "an IDE disk"),
        (0x1F7, "an IDE disk"),
        (0x3F6, "an IDE disk"),
        (0x3F2, "a floppy disk"),
        (0xCFC, "a PCI bus"),
        (0x3C0, "a VGA"),
        (0x3D5, "a VGA"),
        (0x2F8, "a serial port COM2"),
        (0x608, "ACPI power management"),
        (0x5658, "a VMware port"),
    ],
)
def test_a_device_that_is_missing_is_named_once(pc, port, name):
    for _ in range(2):
        assert pc.inb(port) == 0xFF
        pc.outb(port, 0)
    (hint,) = pc.machine.hints
    assert name in hint
    assert f"{port:#x}" in hint
    assert "--processor qemu" in hint


def test_ports_that_nobody_has_anywhere_give_no_hint(pc):
    for port in (0x80, 0xED, 0x1234, 0xFFFF):
        pc.outb(port, 1)
        assert pc.inb(port) == 0xFF
    assert pc.machine.hints == []


def test_a_pci_probe_finds_nothing_and_does_not_reset_the_machine(pc):
    pc.outb(0xCFB, 1)
    pc.machine.port_write(0xCF8, 4, 0x80000600)
    assert pc.machine.port_read(0xCF8, 4) == 0xFFFFFFFF
    assert pc.machine.port_read(0xCFC, 4) == 0xFFFFFFFF
    assert pc.machine.request is None
    assert len(pc.machine.hints) == 1


@pytest.mark.parametrize("table", [PORTS, MEMORY])
def test_ranges_of_hints_are_ranges_and_do_not_overlap(table):
    rows = sorted(table)
    assert all(first <= last for first, last, _ in rows)
    assert all(a[1] < b[0] for a, b in pairwise(rows))


def test_hints_end_with_their_range():
    assert port_hint(0x1EF) is None
    assert port_hint(0x1F8) is None
    assert memory_hint(0xB8000) == "a VGA"
    assert memory_hint(0xC0000) is None


accesses = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 0xFFFF), st.integers(0, 0x1FF), st.sampled_from([0x3F8, 0x510, 0x604, 0xCF8, 0xB004])),
        st.sampled_from([1, 2, 4]),
        st.none() | st.integers(0, 0xFFFFFFFF),
        st.integers(0, 3_000_000_000),
    ),
    max_size=40,
)


@given(accesses)
def test_no_access_of_any_port_raises_and_a_value_fits_its_size(build, accesses):
    pc = build()
    for port, size, value, ns in accesses:
        pc.now += ns
        if value is None:
            assert 0 <= pc.machine.port_read(port, size) < 1 << 8 * size
        else:
            pc.machine.port_write(port, size, value)
        vector = pc.machine.cpus[0].pending()
        assert vector is None or 0 <= vector <= 255
        event = pc.machine.next_event()
        assert event is None or event > pc.now
