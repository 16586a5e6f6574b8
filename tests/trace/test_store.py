import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.machine.record import RECORD_SIZE
from trapline.trace.store import RecordStore


def numbered(first, count):
    return b"".join(number.to_bytes(RECORD_SIZE, "little") for number in range(first, first + count))


def numbers(data):
    return [int.from_bytes(data[at : at + RECORD_SIZE], "little") for at in range(0, len(data), RECORD_SIZE)]


STEP = st.one_of(
    st.integers(0, 9).map(lambda count: ("batch", count)),
    st.just(("single", 1)),
    st.integers(0, 12).map(lambda count: ("newest", count)),
    st.just(("read", 0)),
)


@given(st.integers(1, 10), st.lists(STEP, max_size=40))
def test_the_newest_records_are_kept_in_order(keep, steps):
    store = RecordStore(keep)
    count = 0
    for step, size in steps:
        if step == "batch":
            store.add(memoryview(numbered(count, size)))
            count += size
        elif step == "single":
            store.add_one(numbered(count, 1))
            count += 1
        elif step == "newest":
            assert numbers(store.newest(size)) == list(range(count))[-keep:][-size or count :]
        else:
            assert numbers(store.records()) == list(range(count))[-keep:]
        assert len(store) == min(count, keep)
    assert numbers(store.records()) == list(range(count))[-keep:]


def test_memory_is_bounded():
    store = RecordStore(10)
    for place in range(100):
        store.add(numbered(place * 4, 4))
        store.add_one(numbered(0, 1))
    held = sum(len(piece) for piece in (*store._pieces, *store._singles)) // RECORD_SIZE
    assert held <= 10 + 4


def test_a_batch_is_copied():
    store = RecordStore(4)
    memory = bytearray(numbered(7, 2))
    store.add(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert numbers(store.records()) == [7, 8]


def test_reading_again_copies_nothing():
    store = RecordStore(100)
    store.add(numbered(0, 3))
    store.add_one(numbered(3, 1))
    data = store.records()
    assert store.records() is data


def test_a_store_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one record or more, not 0"):
        RecordStore(0)
