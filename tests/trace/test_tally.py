from hypothesis import given
from hypothesis import strategies as st

from trapline.trace.tally import Tally, VectorCount

SIGHTING = st.tuples(st.integers(0, 31), st.integers(0, (1 << 64) - 1))


def naive(sightings):
    rows = {}
    for vector, rip in sightings:
        row = rows.setdefault(vector, [0, rip, rip])
        row[0] += 1
        row[2] = rip
    return [VectorCount(vector, *rows[vector]) for vector in sorted(rows)]


def add(tally, make_record, batch):
    tally.add(memoryview(b"".join(make_record(vector=vector, rip=rip) for vector, rip in batch)))


def test_nothing_was_seen():
    assert Tally().rows() == []
    assert Tally().total == 0


def test_counts_are_those_of_a_naive_count(make_record):
    @given(st.lists(st.lists(SIGHTING, min_size=1, max_size=20), max_size=6), st.booleans())
    def check(batches, one_by_one):
        tally = Tally()
        for batch in batches:
            if one_by_one or len(batch) == 1:
                for vector, rip in batch:
                    tally.add_one(make_record(vector=vector, rip=rip))
            else:
                add(tally, make_record, batch)
        seen = [sighting for batch in batches for sighting in batch]
        assert tally.rows() == naive(seen)
        assert tally.total == len(seen)

    check()


def test_a_batch_of_one_vector(make_record):
    tally = Tally()
    add(tally, make_record, [(6, 1), (6, 2), (6, 3)])
    assert tally.rows() == [VectorCount(6, 3, 1, 3)]


def test_rows_are_plain_integers(make_record):
    tally = Tally()
    add(tally, make_record, [(6, 1), (14, 2)])
    row = tally.rows()[1]
    assert {type(value) for value in (row.vector, row.count, row.first_rip, row.last_rip)} == {int}
