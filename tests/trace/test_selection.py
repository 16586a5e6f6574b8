import pytest

from trapline.errors import UsageError
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions
from trapline.trace.selection import read_choice


def lookup(address):
    return Symbol("copy_user" if address < 0x1000 else "main", 0)


@pytest.fixture
def records(make_record):
    long, legacy = 0x500, 0
    fields = [
        {"vector": 14, "rip": 0x10, "tsc": 100, "cr3": 0x10A003, "efer": long},
        {"vector": 13, "rip": 0x2000, "tsc": 200, "cr3": 0x10A020, "efer": legacy},
        {"vector": 6, "rip": 0x20, "tsc": 300, "cr3": 0x10A000, "efer": legacy},
        {"vector": 14, "rip": 0x3000, "tsc": 400, "cr3": 0x10B000, "efer": long, "cpl": 3},
    ]
    return Exceptions(b"".join(make_record(**each) for each in fields), lookup=lookup)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, [0, 1, 2, 3]),
        ({"exceptions": "pf,ud"}, [0, 2, 3]),
        ({"exceptions": "all,!pf"}, [1, 2]),
        ({"where": "cpl == 3"}, [3]),
        ({"function": "copy_*"}, [0, 2]),
        ({"function": "copy_*", "exceptions": "pf"}, [0]),
        ({"process": "0x10a000"}, [0, 2]),
        ({"process": "0x10a027"}, [0, 1]),
        ({"first": "1", "last": "2"}, [1, 2]),
        ({"first": "tsc:0xc8", "last": "tsc: 300"}, [1, 2]),
        ({"last": "99999999999999999999999"}, [0, 1, 2, 3]),
        ({"where": "vector == pf", "first": "1"}, [3]),
    ],
)
def test_what_is_chosen(records, options, chosen):
    assert [record.seq for record in records.where(read_choice(**options))] == chosen


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"exceptions": "colour"}, "colour"),
        ({"where": "colour"}, "colour"),
        ({"process": "init"}, "--process init: a whole number"),
        ({"first": "-1"}, r"--from -1: the number of a record, such as 1000, or tsc:N"),
        ({"last": "tsc:noon"}, r"--to tsc:noon: the number of a record"),
    ],
)
def test_what_cannot_be_read(options, complaint):
    with pytest.raises(UsageError, match=complaint):
        read_choice(**options)


def test_records_that_are_looked_at_are_counted(records):
    seen = []
    assert len(records.where(read_choice(where="cpl == 3").watched(seen.append))) == 1
    assert seen == [4]
