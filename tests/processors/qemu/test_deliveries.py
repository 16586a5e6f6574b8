import struct

import pytest

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.exits import ExitCode, is_intercepted, set_intercept
from trapline.arch.vectors import Vector
from trapline.machine.processor import Watchpoint
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.deliveries import Deliveries
from trapline.processors.qemu.facts import MANUAL
from trapline.testing.conformance.modes import (
    GDT,
    IDT,
    KERNEL_STACK,
    LONG,
    PROTECTED_32,
    REAL,
    SIZE,
    TSS,
    enter,
    handler,
    image,
)

RIP, GP_EXIT = 0x4000, 0x4D
UD = Event(Vector.UD, EventType.EXCEPTION)
INTR = Event(0x40, EventType.INTR)


class Guest:
    def __init__(self, shared):
        self.memory = ScriptedMemory(SIZE)
        self.save, self.control = shared.vmcb.save, shared.vmcb.control
        self.deliveries = Deliveries(shared, self.memory, MANUAL._replace(faults_set_rf=False))

    def begin(self, mode, event, cpl=0):
        self.memory.write(0, image(mode))
        enter(self.save, mode, cpl, RIP)
        self.control.event_inj = encode(event) if event else 0
        self.control.interrupt_shadow = 1

    def is_delivered(self, *watched):
        self.deliveries.before_entry(watched)
        return not self.control.event_inj


@pytest.fixture
def guest(shared):
    return Guest(shared)


@pytest.mark.parametrize(("mode", "width"), [(REAL, 2), (PROTECTED_32, 4), (LONG, 8)])
@pytest.mark.parametrize("event", [UD, INTR, Event(0x80, EventType.SOFT)])
def test_what_touches_the_frame_is_delivered_here(guest, mode, width, event):
    size = width * (5 if mode is LONG else 3)
    bottom = KERNEL_STACK - size
    for address, length, touched in ((bottom - 1, 1, False), (KERNEL_STACK, 8, False), (bottom - 8, 9, True)):
        guest.begin(mode, event)
        assert guest.is_delivered(Watchpoint(address, length, False)) is touched
        assert guest.save.rip == (handler(event.vector) if touched else RIP)
    assert (guest.save.rsp, guest.control.interrupt_shadow) == (bottom, 0)
    assert int.from_bytes(guest.memory.read(bottom, width), "little") == RIP


@pytest.mark.parametrize("address", [IDT + 8 * Vector.UD, GDT, TSS + 4])
def test_what_touches_the_tables_is_delivered_here(guest, address):
    guest.begin(PROTECTED_32, UD, cpl=3)
    assert guest.is_delivered(Watchpoint(address, 1, True))
    assert (guest.save.cpl, guest.save.rip) == (0, handler(Vector.UD))
    assert struct.unpack("<I", guest.memory.read(guest.save.rsp, 4)) == (RIP,)


def test_what_fails_is_left_to_the_cpu(guest):
    guest.begin(PROTECTED_32, UD)
    guest.save.idtr.limit = 0
    assert not guest.is_delivered(Watchpoint(KERNEL_STACK - 4, 4, False))
    assert guest.save.rip == RIP


def test_without_an_event_there_is_nothing_to_do(guest):
    guest.begin(PROTECTED_32, None)
    guest.deliveries.before_entry((Watchpoint(KERNEL_STACK - 4, 4, False),))
    assert guest.save.rip == RIP


def test_the_vector_of_an_interrupt_is_fetched_with_an_empty_idt(guest):
    control, idtr = guest.control, guest.save.idtr
    guest.begin(PROTECTED_32, None)
    set_intercept(control, ExitCode.INTR)
    control.exit_code = ExitCode.INTR
    assert guest.deliveries.fetch_vector()
    assert (idtr.limit, is_intercepted(control, ExitCode.INTR)) == (0, False)
    control.exit_code, control.exit_int_info = GP_EXIT, encode(Event(0x40, EventType.EXCEPTION))  # TCG's type
    assert guest.deliveries.fetch_vector()
    assert (idtr.limit, is_intercepted(control, ExitCode.INTR)) == (0xFFF, True)
    assert decode(control.event_inj) == INTR


def test_an_interrupt_that_was_withdrawn_is_none(guest):
    control = guest.control
    guest.begin(PROTECTED_32, None)
    control.exit_code = ExitCode.INTR
    assert guest.deliveries.fetch_vector()
    control.exit_code, control.exit_int_info = ExitCode.NMI, 0
    assert not guest.deliveries.fetch_vector()
    assert (guest.save.idtr.limit, control.event_inj) == (0xFFF, 0)
    assert is_intercepted(control, ExitCode.INTR)


def test_other_exits_are_none_of_its_business(guest):
    guest.begin(PROTECTED_32, None)
    guest.control.exit_code = GP_EXIT
    assert not guest.deliveries.fetch_vector()
    guest.control.exit_code = ExitCode.INTR
    assert guest.deliveries.fetch_vector()
    guest.deliveries.reset()
    guest.control.exit_code = GP_EXIT
    assert not guest.deliveries.fetch_vector()
