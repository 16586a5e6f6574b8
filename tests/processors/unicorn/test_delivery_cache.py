import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.testing.conformance.modes import CODE, IDT, LONG, PAGED_32, handler, page_table_entry

UD = encode(Event(Vector.UD, EventType.EXCEPTION))
GATE = IDT + 16 * Vector.UD
HANDLER = 0x7000


@pytest.fixture
def deliver(start):
    """Return a function that injects #UD in long mode from the same state each time, and the guest."""
    guest = start("nop", "cpuid", mode=LONG)
    guest.memory.write(HANDLER, b"\x0f\xa2")
    assert guest.exit() == ExitCode.CPUID
    state = guest.save.rsp, guest.save.rflags

    def deliver(status=0):
        guest.save.rip, guest.save.rsp, guest.save.rflags = CODE, state[0], state[1] | status
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


def test_nothing_is_replayed_outside_long_mode(replays, start):
    guest = start("nop", "cpuid", mode=PAGED_32)
    for _ in range(3):
        guest.save.rip, guest.control.event_inj = CODE, UD
        assert guest.exit() == ExitCode.CPUID
    assert not any(replays)
