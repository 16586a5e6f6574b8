import pytest

from trapline.machine.record import RECORD_SIZE, Record
from trapline.trace.columns import dtype, view

FIELDS = (
    "tsc", "vector", "cpl", "flags", "error_code", "exit_int_info", "rip", "rsp", "rflags", "cr3", "address", "cs",
    "ss", "vcpu", "cs_base", "cr0", "cr4", "efer", "dr6", "event", "rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_column_reads_what_was_written_to_the_field(make_record, name):
    width = getattr(Record, name).size * 8
    highest = (1 << width) - 1
    records = view(make_record(**{name: highest}) + make_record(**{name: 1 << width - 1}) + make_record())
    assert records[name].tolist() == [highest, 1 << width - 1, 0]
    for other in set(FIELDS) - {name}:
        assert not records[other].any()


def test_every_field_is_a_column():
    assert set(dtype().names) == set(FIELDS)
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
