import struct

import pytest

from trapline.arch.descriptors import ist_offset
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.testing.conformance.modes import (
    CODE,
    CODE_64,
    GDT,
    IDT,
    LONG,
    PAGED_32,
    STACK,
    TSS,
    handler,
    page_table_entry,
)

UD = encode(Event(Vector.UD, EventType.EXCEPTION))
GATE = IDT + 16 * Vector.UD
HANDLER = 0x7000
IST_STACK = 0x8800


@pytest.fixture
def deliver(start):
    """Return a function that injects #UD in long mode from the same state each time, and the guest."""
    guest = start("nop", "cpuid", mode=LONG)
    guest.memory.write(HANDLER, b"\x0f\xa2")
    assert guest.exit() == ExitCode.CPUID
    state = guest.save.rsp, guest.save.rflags

    def deliver(status=0, rsp=state[0]):
        guest.save.rip, guest.save.rsp, guest.save.rflags = CODE, rsp, state[1] | status
        guest.control.event_inj = UD
        assert guest.exit() == ExitCode.CPUID
        return guest.save.rip

    return guest, deliver


@pytest.fixture
def replays(monkeypatch):
    """Count the deliveries that were replayed."""
    from trapline.processors.unicorn.delivery_cache import DeliveryCache

    counted = []
    real = DeliveryCache.replay

    def replay(self, generation, word):
        known = real(self, generation, word)
        counted.append(known is not None)
        return known

    monkeypatch.setattr(DeliveryCache, "replay", replay)
    return counted


def test_a_replayed_delivery_pushes_the_flags_of_its_own(replays, deliver):
    guest, deliver = deliver
    for status in (0, RFLAGS.CF, RFLAGS.ZF):
        assert deliver(status) == handler(Vector.UD)
        assert guest.u32(guest.save.rsp + 16) & RFLAGS.STATUS == status
    assert replays[-1]


def test_a_gate_that_changed_is_read_again(replays, deliver):
    guest, deliver = deliver
    assert [deliver(), deliver()] == [handler(Vector.UD)] * 2
    assert replays[-1]
    guest.memory.write(GATE, HANDLER.to_bytes(2, "little"))
    assert deliver() == HANDLER
    assert not replays[-1]


def test_a_page_table_that_changed_is_read_again(replays, deliver):
    guest, deliver = deliver
    deliver()
    assert deliver() == handler(Vector.UD)
    entry = page_table_entry(guest.save.rsp & ~0xFFF)
    before = guest.memory.read(entry, 8)
    guest.memory.write(entry, (0x1_0000 | before[0]).to_bytes(8, "little"))
    guest.memory.write(0x1_0000, bytes(0x1000))
    guest.control.tlb_control = 1
    assert deliver() == handler(Vector.UD)
    assert not replays[-1]
    assert guest.memory.read(0x1_0000 + (guest.save.rsp & 0xFFF), 8) == CODE.to_bytes(8, "little")


def frame(guest):
    return struct.unpack("<5Q", guest.memory.read(guest.save.rsp, 40))


@pytest.mark.parametrize("rsp", [0x9FF8, 0x9F07, 0x9800, 0x9038, 0x9030])
def test_a_stack_that_moved_within_its_page_is_replayed(replays, deliver, rsp):
    guest, deliver = deliver
    deliver()
    assert deliver(RFLAGS.CF, rsp) == handler(Vector.UD)
    assert replays[-1]
    assert guest.save.rsp == (rsp & ~0xF) - 40
    rip, _, flags, pushed, _ = frame(guest)
    assert (rip, flags & RFLAGS.STATUS, pushed) == (CODE, RFLAGS.CF, rsp)


@pytest.mark.parametrize("rsp", [0x9020, 0x9010, 0x9000, 0x8800])
def test_a_frame_in_another_page_is_not(replays, deliver, rsp):
    guest, deliver = deliver
    deliver()
    assert deliver(rsp=rsp) == handler(Vector.UD)
    assert not replays[-1]
    assert (guest.save.rsp, frame(guest)[3]) == (rsp - 40, rsp)


def test_exceptions_inside_of_exceptions_are_replayed(replays, deliver):
    guest, deliver = deliver
    rsp = guest.save.rsp
    for _ in range(50):
        deliver(rsp=rsp)
        assert guest.save.rsp == (rsp & ~0xF) - 40
        rsp = guest.save.rsp
    assert replays.count(False) < 5


def test_a_stack_of_the_ist_stays_where_it_is(replays, deliver):
    """Also after RSP happened to be there."""
    guest, deliver = deliver
    guest.memory.write(TSS + ist_offset(1), IST_STACK.to_bytes(8, "little"))
    guest.memory.write(GATE + 4, b"\x01")
    for rsp in (IST_STACK, IST_STACK - 0x100, IST_STACK + 0x100):
        deliver(rsp=rsp)
        assert (guest.save.rsp, frame(guest)[3]) == (IST_STACK - 40, rsp)
    assert replays[-1]


def test_a_handler_that_stays_at_cpl_3_finds_its_frame_where_rsp_is(start):
    guest = start("nop", "cpuid", mode=LONG, cpl=3)
    attributes = GDT + CODE_64 + 5
    guest.memory.write(attributes, bytes((guest.memory.read(attributes, 1)[0] | 4,)))  # conforming
    for rsp in (STACK, STACK - 0x100):
        guest.save.rip, guest.save.rsp, guest.control.event_inj = CODE, rsp, UD
        assert guest.exit() == ExitCode.CPUID
        assert (guest.save.cpl, guest.save.rsp, frame(guest)[3]) == (3, rsp - 40, rsp)


def test_nothing_is_replayed_outside_long_mode(replays, start):
    guest = start("nop", "cpuid", mode=PAGED_32)
    for _ in range(3):
        guest.save.rip, guest.control.event_inj = CODE, UD
        assert guest.exit() == ExitCode.CPUID
    assert not any(replays)
