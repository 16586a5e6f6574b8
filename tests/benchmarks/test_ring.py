from benchmarks import ring
from trapline.processors.qemu.layout import RING_RECORDS


def test_each_round_begins_with_an_empty_ring(monkeypatch, tmp_path):
    monkeypatch.setattr(ring, "_TURNS", 1)
    (table,) = ring.ring(2, tmp_path).values()
    assert table.times == RING_RECORDS
    assert len(table.rounds["counted"].seconds) == 2
