import pytest
from hypothesis import strategies as st

from trapline.arch.vectors import Vector
from trapline.machine.record import Record, RecordFlags

SIZE = len(bytes(Record()))
VECTORS = tuple(Vector)
ALL_FLAGS = sum(value for name, value in vars(RecordFlags).items() if name.isupper())


def make(**fields):
    """Return the bytes of a record."""
    record = Record()
    for name, value in fields.items():
        setattr(record, name, value)
    return bytes(record)


def possible(data):
    """Turn bytes into records that a processor could have written: faster than a draw for each field."""
    memory = bytearray(data)
    for start in range(0, len(memory), SIZE):
        record = Record.from_buffer(memory, start)
        record.vector = VECTORS[record.vector % len(VECTORS)]
        record.cpl %= 4
        record.flags &= ALL_FLAGS
    return bytes(memory)


def batch(size):
    return st.binary(min_size=size * SIZE, max_size=size * SIZE).map(possible)


BATCHES = st.lists(st.integers(1, 6).flatmap(batch), max_size=5)


@pytest.fixture
def make_record():
    return make


@pytest.fixture(scope="session")
def batches():
    """Return the strategy for batches of records, each some whole records one after another."""
    return BATCHES
