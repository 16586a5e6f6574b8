import numpy as np
import pyarrow as pa

from trapline.trace.overview import overview, places, timeline
from trapline.trace.overview.overview import RARE
from trapline.trace.overview.places import PlaceCounter
from trapline.trace.overview.timeline import BINS, Bins

PF, GP, UD = 14, 13, 6


def batches(size=70_000):
    """Yield batches of #PF with one #UD among them."""
    random = np.random.default_rng(1)
    tsc = np.cumsum(random.integers(1, 1000, size)).astype(np.uint64)
    vector = np.full(size, PF, np.uint8)
    vector[1234] = UD
    rip = random.choice(np.array([0x1000, 0x2000, 0x3000], np.uint64), size, p=(0.1, 0.2, 0.7))
    names = pa.array([{0x1000: "a", 0x2000: "b", 0x3000: None}[each] for each in rip.tolist()]).dictionary_encode()
    table = pa.table(
        {
            "seq": np.arange(size, dtype=np.uint64),
            "tsc": tsc,
            "vector": vector,
            "error_code": pa.array(np.full(size, 2, np.uint32), mask=vector == UD),
            "cpl": np.where(np.arange(size) % 4, 0, 3).astype(np.uint8),
            "linear_rip": rip,
            "cr3": np.where(np.arange(size) < 100, 0x1000, 0x2000).astype(np.uint64),
            "symbol": names,
            "symbol_offset": np.full(size, 8, np.uint64),
        }
    )
    return table, table.to_batches(max_chunksize=9_999)


def test_an_overview_counts_what_numpy_counts():
    table, pieces = batches()
    found = overview(pieces)
    vector, tsc = table["vector"].to_numpy(), table["tsc"].to_numpy()
    assert found.total == vector.size
    assert [(row.vector, row.times, row.first, row.last) for row in found.vectors] == [
        (UD, 1, 1234, 1234),
        (PF, vector.size - 1, 0, vector.size - 1),
    ]
    assert found.vectors[1].user == vector.size // 4
    for axis, values in ((found.tsc, tsc), (found.seq, table["seq"].to_numpy())):
        for code, bins in axis.counts.items():
            places = (values[vector == code] >> np.uint64(axis.shift)).astype(np.int64) - axis.first
            assert (bins == np.bincount(places, minlength=bins.size)).all()
    (only,) = found.rare
    assert (only.seq, only.tsc, only.vector, only.error_code, only.address) == (1234, tsc[1234], UD, None, None)
    rip = table["linear_rip"].to_numpy()
    assert (found.places[0].vector, found.places[0].address) == (PF, 0x3000)
    assert [place.symbol for place in found.places if place.vector == PF] == [None, "b+0x8", "a+0x8"]
    assert found.places[0].times == np.count_nonzero((rip == 0x3000) & (vector == PF))
    assert [share.value for share in found.functions] == ["b", "a"]
    assert [tuple(share) for share in found.processes] == [(0x2000, vector.size - 100), (0x1000, 100)]
    assert found.vcpus == ()


def test_without_records_there_is_nothing():
    found = overview([])
    assert (found.total, found.vectors, found.tsc, found.seq) == (0, (), None, None)


def test_bins_grow_to_both_sides_and_lose_nothing():
    random = np.random.default_rng(2)
    values = np.concatenate(
        [random.integers(low, high, 500, dtype=np.uint64) for low, high in ((5000, 9000), (1, 10), (0, 1 << 63))]
    )
    bins = Bins()
    for piece in np.split(values, 30):
        bins.add(piece, np.full(piece.size, PF, np.uint8))
    axis = bins.axis()
    assert (axis.least, axis.most) == (values.min(), values.max())
    places = (values >> np.uint64(axis.shift)).astype(np.int64) - axis.first
    assert (axis.counts[PF] == np.bincount(places, minlength=axis.counts[PF].size)).all()
    assert BINS // 2 < axis.counts[PF].size <= BINS
    half = axis.halved()
    assert half.counts[PF].sum() == values.size
    assert half.counts[PF].size <= BINS // 2 + 1


def test_a_full_bin_stays_full(monkeypatch):
    monkeypatch.setattr(timeline, "MOST", 100)
    bins = Bins()
    for _ in range(3):
        bins.add(np.full(60, 7, np.uint64), np.full(60, GP, np.uint8))
    assert bins.axis().counts[GP].tolist() == [100]


def test_of_too_many_places_those_with_the_most_stay(monkeypatch):
    monkeypatch.setattr(places, "KEPT", 64)
    counter = PlaceCounter()
    for start in range(0, 1000, 50):
        addresses = np.concatenate((np.arange(start, start + 50), np.full(20, 7))).astype(np.uint64)
        counter.add(addresses, np.arange(addresses.size, dtype=np.uint64))
    assert not counter.complete
    assert len(counter) <= 64
    (top,) = counter.top(PF, 1)
    assert (top.address, top.times) == (7, 20 * 20 + 1)


def test_a_vector_with_more_than_a_few_is_not_kept_whole():
    for size, kept in ((RARE, RARE), (RARE + 1, 0)):
        batch = pa.record_batch({"seq": np.arange(size), "vector": np.full(size, GP, np.uint8)})
        assert len(overview([batch.slice(0, 100), batch.slice(100)]).rare) == kept
