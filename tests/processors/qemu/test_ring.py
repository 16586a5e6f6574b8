"""What is read from the ring is checked before anybody gets it."""

import pytest

from trapline.arch.vectors import Vector
from trapline.errors import MonitorDamaged
from trapline.machine.record import RECORD_SIZE, RecordFlags
from trapline.processors.qemu.damage import Damage, good_records
from trapline.processors.qemu.layout import RING_RECORDS
from trapline.processors.qemu.ring import Ring

FORWARDED = bytes([0, 0, 0, 0, 0, 0, 0, 0, Vector.UD, 3, RecordFlags.FORWARDED]).ljust(RECORD_SIZE, b"\0")
HUGE = (1 << 64) - 1


@pytest.fixture
def ring(shared):
    """A ring full of good records, of which none is new, and what its sink gets."""
    shared.ring[:] = FORWARDED * RING_RECORDS
    ring = Ring(shared, Damage(shared, isolated=False, q35=False))
    ring.got = []
    ring.sink = lambda records: ring.got.append(bytes(records))
    return ring


def write(shared, number, at, value):
    shared.ring[number * RECORD_SIZE + at] = value


def test_new_records_reach_the_sink(shared, ring):
    shared.mailbox.ring_head = 3
    assert (ring.drain(), ring.drain()) == (3, 0)
    assert b"".join(ring.got) == FORWARDED * 3
    assert shared.mailbox.ring_tail == 3


def test_records_that_go_round_the_end_keep_their_order(shared, ring):
    shared.mailbox.ring_head = RING_RECORDS - 1
    ring.drain()
    write(shared, RING_RECORDS - 1, 0, 1)
    write(shared, 0, 0, 2)
    shared.mailbox.ring_head = RING_RECORDS + 1
    assert ring.drain() == 2
    assert [record[0] for record in ring.got[1:]] == [1, 2]


def test_what_the_sink_gets_is_a_copy(shared, ring):
    """A guest that can write to the ring does so between two looks at it as well."""
    kept = []
    ring.sink = kept.append
    shared.mailbox.ring_head = 1
    ring.drain()
    write(shared, 0, 8, 200)
    assert bytes(kept[0]) == FORWARDED


def test_an_interrupt_comes_when_the_sink_has_the_records(shared, ring):
    """They were recorded twice: a Ctrl-C waits for the end of a batch, and is raised by the sink itself."""

    def interrupted(records):
        ring.got.append(bytes(records))
        raise KeyboardInterrupt

    keep, ring.sink = ring.sink, interrupted
    shared.mailbox.ring_head = 3
    with pytest.raises(KeyboardInterrupt):
        ring.drain()
    ring.sink = keep
    shared.mailbox.ring_head = 5
    assert ring.drain() == 2
    assert b"".join(ring.got) == FORWARDED * 5
    assert shared.mailbox.ring_tail == 5


def test_what_the_sink_cannot_take_is_given_to_it_again(shared, ring):
    keep = ring.sink
    shared.mailbox.ring_head = 3
    ring.sink = lambda records: 1 // 0
    with pytest.raises(ZeroDivisionError):
        ring.drain()
    ring.sink = keep
    assert ring.drain() == 3
    assert b"".join(ring.got) == FORWARDED * 3


@pytest.mark.parametrize("head", [5 + RING_RECORDS + 1, 4, 0, 1 << 31, HUGE])
def test_a_head_that_no_monitor_writes(shared, ring, head):
    shared.mailbox.ring_head = 5
    ring.drain()
    shared.mailbox.ring_head = head
    for _ in range(2):  # and it stays so
        with pytest.raises(MonitorDamaged, match="the head of its ring was written over"):
            ring.drain()
    assert len(b"".join(ring.got)) == 5 * RECORD_SIZE


@pytest.mark.parametrize(("at", "value"), [(8, 200), (8, Vector.NMI), (8, 31), (9, 4), (10, 8), (10, 0x84)], ids=str)
@pytest.mark.parametrize("number", [0, 2, 6])
def test_a_record_that_no_monitor_writes(shared, ring, at, value, number):
    shared.mailbox.ring_head = 7
    write(shared, number, at, value)
    with pytest.raises(MonitorDamaged, match="a record in its ring is not one that it writes"):
        ring.drain()
    assert b"".join(ring.got) == FORWARDED * number  # those before it are kept
    with pytest.raises(MonitorDamaged):
        ring.drain()
    assert b"".join(ring.got) == FORWARDED * number


def test_the_first_bad_record_counts():
    data = bytearray(FORWARDED * 9)
    data[5 * RECORD_SIZE + 8] = 200
    data[3 * RECORD_SIZE + 9] = 4
    assert good_records(bytes(data)) == 3


def test_a_tail_that_is_not_ours_is_known(shared, ring):
    shared.mailbox.ring_head = 5
    ring.drain()
    assert ring.blocked() is None
    shared.mailbox.ring_tail = 6
    assert ring.blocked() == "the tail of its ring was written over"
