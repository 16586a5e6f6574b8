"""What is read of a stored run is what was written, and nothing else."""

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.errors import UsageError
from trapline.symbols import Symbol
from trapline.trace.jsonl import json_lines
from trapline.trace.stored import StoredRecord, read_stored

RECORD = {"seq": 0, "vector": 6, "name": "#UD", "outcome": "forwarded", "error_code": None}


def lookup(address):
    return Symbol("näme", address & 0xFF, "file.c", 7) if address & 1 else None


def read(content):
    return [line for _, line in read_stored(io.BytesIO(content))]


@given(data=st.data())
def test_each_record_comes_back(batches, data):
    written = "".join(line for batch in data.draw(batches) for line in json_lines(batch, 5, lookup))
    found = read(written.encode())
    assert msgspec.to_builtins(found) == [json.loads(line) for line in written.splitlines()]


def test_an_imported_record_lacks_fields():
    (record,) = read(b'{"seq":0,"vector":6,"name":"#UD"}\n')
    assert isinstance(record, StoredRecord)


def test_other_types_are_left_out_and_the_last_line_may_be_cut_off():
    line = json.dumps(RECORD).encode() + b"\n"
    assert len(read(line + b'{"type":"later","seq":[]}\n' + line + line[:9])) == 2


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"what\n", "line 2 is not a record"),
        (b"\x7fELF", "line 2 is not a record"),
        (b"[1]\n", "line 2 is not a record"),
        (b"{]\n", "line 2 is not JSON"),
        (b'{"type":"\xff"}\n', "line 2 is not JSON"),
        (b'{"seq":Infinity}\n', "line 2 is not JSON"),
        (b'{"seq":NaN}\n', "line 2 is not JSON"),
        (b'{"seq":1,"type":5}\n', "line 2 is damaged: Expected `str | null`, got `int` - at `$.type`"),
        (b"{" + bytes(1 << 20), "line 2 is longer than 1,048,576 bytes"),
        (b'{"seq":' + b"9" * 5000 + b"}\n", "line 2 is damaged: Integer value out of range - at `$.seq`"),
        *[
            (json.dumps(RECORD | change).encode() + b"\n", f"line 2 is damaged: {complaint}")
            for change, complaint in (
                ({"seq": 1 << 64}, "seq and tsc have up to 64 bits"),
                ({"vector": -1}, "Expected `int` >= 0 - at `$.vector`"),
                ({"vector": 200}, "Expected `int` <= 31 - at `$.vector`"),
                ({"error_code": "what"}, "Expected `int | null`, got `str` - at `$.error_code`"),
                ({"error_code": 1 << 32}, "Expected `int` <= 4294967295 - at `$.error_code`"),
                ({"outcome": "\x1b[31m"}, "Invalid enum value '\\x1b[31m' - at `$.outcome`"),
                ({"rip": "0x1\x1b"}, "Expected a number of 64 bits, as `0x1f` - at `$.rip`"),
                ({"vectoring": 7}, "Expected `object | null`, got `int` - at `$.vectoring`"),
            )
        ],
    ],
)
def test_a_damaged_line_is_told_by_its_number(line, complaint):
    with pytest.raises(UsageError) as caught:
        read(json.dumps(RECORD).encode() + b"\n" + line)
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize("value", [b"[" * 100_000 + b"]" * 100_000, b'{"x":' * 100_000 + b"0" + b"}" * 100_000])
def test_a_value_may_be_nested_deeply(value):
    """From Python 3.14 on as deeply as the stack has room for."""
    with pytest.raises(UsageError, match=r"^line 2 is damaged: (it is nested too deeply|Expected `int`, got)"):
        read(json.dumps(RECORD).encode() + b'\n{"seq":' + value + b"}\n")


class Endless:
    """A file without an end, and without a line's."""

    def __init__(self):
        self.read = 0

    def readline(self, size):
        self.read += size
        return b"{" * size


def test_of_an_endless_line_no_more_is_read_than_a_line_may_have():
    file = Endless()
    with pytest.raises(UsageError):
        list(read_stored(file))
    assert file.read == (1 << 20) + 1
