import json

import pytest
from hypothesis import given

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.vectors import VECTORS, Vector
from trapline.machine.record import Record, RecordFlags
from trapline.trace.columns import view
from trapline.trace.lines import json_lines, outcome, text_line

HEX = ("cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6")
UD = Event(Vector.UD, EventType.EXCEPTION)


def one(data):
    return view(data)[0]


def event_of(word):
    event = decode(word)
    if event is None:
        return None
    known = event.type in set(EventType)
    kind = EventType(event.type).name.lower() if known else str(event.type)
    return {"vector": event.vector, "type": kind, "error_code": event.error_code}


def test_a_json_line_holds_the_record(batches):
    @given(batches)
    def check(batches):
        data = b"".join(batches)
        lines = list(json_lines(view(data), 7))
        size = len(bytes(Record()))
        assert len(lines) == len(data) // size
        for number, line in enumerate(lines):
            assert line.endswith("}\n")
            assert line.count("\n") == 1
            assert line.isascii()
            found = json.loads(line)
            record = Record.from_buffer_copy(data, number * size)
            flags = record.flags
            assert found == {
                "seq": 7 + number,
                "tsc": record.tsc,
                "vcpu": record.vcpu,
                "vector": record.vector,
                "name": VECTORS[record.vector].mnemonic,
                "error_code": record.error_code if flags & RecordFlags.HAS_ERROR_CODE else None,
                "address": f"{record.address:#x}" if flags & RecordFlags.HAS_ADDRESS else None,
                "cpl": record.cpl,
                **{name: f"{getattr(record, name):#x}" for name in HEX},
                "vectoring": event_of(record.exit_int_info),
                "outcome": outcome(flags),
                "injected": event_of(record.event),
            }

    check()


def test_a_64_bit_value_survives_a_reader_of_doubles(make_record):
    (line,) = json_lines(view(make_record(rip=(1 << 64) - 1)), 0)
    assert int(json.loads(line)["rip"], 16) == (1 << 64) - 1


def test_a_reserved_event_type_is_its_number(make_record):
    (line,) = json_lines(view(make_record(exit_int_info=encode(Event(6, 5)))), 0)
    assert json.loads(line)["vectoring"] == {"vector": 6, "type": "5", "error_code": None}


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (RecordFlags.FORWARDED, "forwarded"),
        (RecordFlags.COMBINED, "combined"),
        (RecordFlags.SHUTDOWN, "shutdown"),
        (RecordFlags.DISCARDED, "discarded"),
        (0, "undelivered"),
        (RecordFlags.FORWARDED | RecordFlags.SYNTHESIZED | RecordFlags.HAS_ERROR_CODE, "forwarded"),
    ],
)
def test_what_became_of_it(flags, word):
    assert outcome(flags) == word


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vector": 6, "cs": 8, "rip": 0x7C00}, "#UD   cpl 0  0008:0000000000007c00"),
        ({"vector": 14, "flags": RecordFlags.HAS_ADDRESS, "address": 0x1234}, "address 0x1234"),
        ({"vector": 6, "address": 0x1234}, None),
        (
            {"vector": 14, "flags": RecordFlags.HAS_ERROR_CODE, "error_code": 6},
            "error 0x6: write, not present, user",
        ),
        ({"vector": 13, "error_code": 8}, None),
        ({"vector": 13, "exit_int_info": encode(UD)}, "while delivering #UD"),
        ({"vector": 13, "flags": RecordFlags.COMBINED}, "-> #DF"),
        ({"vector": 13, "flags": RecordFlags.SHUTDOWN}, "-> shutdown"),
        ({"vector": 13, "flags": RecordFlags.DISCARDED}, "-> discarded"),
        ({"vector": 8, "flags": RecordFlags.SYNTHESIZED | RecordFlags.FORWARDED}, "made of the two before"),
        ({"vector": 6, "flags": RecordFlags.SYNTHESIZED | RecordFlags.FORWARDED}, None),
        ({"vector": 6, "flags": RecordFlags.FORWARDED}, None),
    ],
)
def test_a_line_of_words(make_record, fields, words):
    line = text_line(one(make_record(**fields)))
    assert "\n" not in line
    if words is None:
        assert not {"error", "address", "->", "made", "while"} & set(line.split())
    else:
        assert words in line


def test_words_can_be_made_of_any_record(batches):
    @given(batches)
    def check(batches):
        for record in view(b"".join(batches)):
            assert VECTORS[int(record["vector"])].mnemonic in text_line(record)

    check()
