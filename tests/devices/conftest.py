"""A bare machine whose virtual clock the test turns by hand."""

import pytest

from trapline.devices.machine import BareMachine

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000


class Pc:
    """The machine as a guest's code sees it: outb, inb and 32-bit memory accesses."""

    def __init__(self, memory=64 << 20, **options):
        self.now = 0
        self.written = bytearray()
        self.debugged = bytearray()
        self.machine = BareMachine(
            memory, output=self.written.extend, debug=self.debugged.extend, clock=lambda: self.now, **options
        )

    def outb(self, port, value):
        self.machine.port_write(port, 1, value)

    def inb(self, port):
        return self.machine.port_read(port, 1)

    def lapic(self, register, value=None):
        return self._mmio(0xFEE00000 + register, value)

    def ioapic(self, register, value=None):
        self._mmio(0xFEC00000, register)
        return self._mmio(0xFEC00010, value)

    def redirect(self, pin, entry):
        self.ioapic(0x10 + 2 * pin, entry & 0xFFFFFFFF)
        self.ioapic(0x11 + 2 * pin, entry >> 32)

    def _mmio(self, gpa, value):
        if value is None:
            return self.machine.mmio_read(gpa, 4)
        return self.machine.mmio_write(gpa, 4, value)

    def wait(self, ns):
        self.now += ns
        self.machine.advance()

    def init_pics(self, master=0x20, slave=0x28, *, icw4=0x01, masks=(0xFF, 0xFF)):
        """The sequence of every textbook kernel."""
        for chip, base, wiring, mask in ((0x20, master, 4, masks[0]), (0xA0, slave, 2, masks[1])):
            self.outb(chip, 0x11)
            self.outb(chip + 1, base)
            self.outb(chip + 1, wiring)
            self.outb(chip + 1, icw4)
            self.outb(chip + 1, mask)

    def program_pit(self, channel, mode, count):
        self.outb(0x43, channel << 6 | 0x30 | mode << 1)
        self.outb(0x40 + channel, count & 0xFF)
        self.outb(0x40 + channel, count >> 8 & 0xFF)

    def read_count(self, channel):
        self.outb(0x43, channel << 6)
        low = self.inb(0x40 + channel)
        return low | self.inb(0x40 + channel) << 8

    def interrupts(self):
        """Take what is pending, end it at the PICs and at the local APIC, and return the vectors."""
        taken = []
        while (vector := self.machine.cpus[0].pending()) is not None:
            assert self.machine.cpus[0].acknowledge() == vector
            taken.append(vector)
            for chip in (0xA0, 0x20):
                self.outb(chip, 0x20)
            self.lapic(0xB0, 0)
        return taken


@pytest.fixture
def pc():
    return Pc()


@pytest.fixture(scope="session")
def build():
    return Pc
