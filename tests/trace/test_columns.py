import numpy as np

from trapline.arch.layout import leaves
from trapline.machine.record import RECORD_SIZE, Record
from trapline.trace.columns import dtype, view


def test_a_column_is_a_field_of_the_record():
    fields = [leaf for leaf in leaves(Record()) if not leaf.path.startswith("reserved")]
    assert [leaf.path for leaf in fields] == list(dtype().names)
    for leaf in fields:
        kind, offset = dtype().fields[leaf.path][:2]
        assert (offset, kind) == (leaf.offset, np.dtype(f"<u{leaf.size}"))
    assert dtype().itemsize == RECORD_SIZE == len(bytes(Record()))


def test_a_view_is_no_copy(make_record):
    memory = bytearray(make_record(vector=14, rip=1 << 63) + make_record(vector=6))
    records = view(memoryview(memory))
    assert records["vector"].tolist() == [14, 6]
    assert records["rip"].tolist() == [1 << 63, 0]
    memory[dtype().fields["vector"][1]] = 13
    assert records["vector"].tolist() == [13, 6]


def test_no_records_are_an_empty_array():
    assert len(view(b"")) == 0
