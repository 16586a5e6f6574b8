import pytest
from hypothesis import given

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.vectors import VECTORS, Vector
from trapline.errors import TraplineError
from trapline.machine.record import GENERAL, RECORD_SIZE, Record, RecordFlags
from trapline.symbols import Symbol
from trapline.trace.exception_record import Outcome, decode_record, linear_rip, outcome_of

UD = Event(Vector.UD, EventType.EXCEPTION)
GP = Event(Vector.GP, EventType.EXCEPTION, 0)
SAME = ("rip", "cs", "cs_base", "cpl", "rsp", "ss", "rflags", "cr0", "cr3", "cr4", "efer", "dr6", "tsc", "vcpu")


def test_a_record_has_what_was_stored(batches):
    @given(batches)
    def check(batches):
        data = b"".join(batches)
        for number in range(len(data) // RECORD_SIZE):
            stored = Record.from_buffer_copy(data, number * RECORD_SIZE)
            record = decode_record(memoryview(data), number * RECORD_SIZE, number + 7)
            flags = stored.flags
            assert {name: getattr(record, name) for name in SAME} == {name: getattr(stored, name) for name in SAME}
            assert record.registers._asdict() == {name: getattr(stored, name) for name in GENERAL}
            assert record.seq == number + 7
            assert record.vector is Vector(stored.vector)
            assert record.error_code == (stored.error_code if flags & RecordFlags.HAS_ERROR_CODE else None)
            assert record.address == (stored.address if flags & RecordFlags.HAS_ADDRESS else None)
            assert (record.vectoring, record.injected) == (decode(stored.exit_int_info), decode(stored.event))
            assert record.synthesized is bool(flags & RecordFlags.SYNTHESIZED)
            assert record.symbol is None
            assert VECTORS[stored.vector].mnemonic in str(record)

    check()


def test_the_linear_address_has_a_name(make_record):
    asked = []

    def lookup(address):
        asked.append(address)
        return Symbol("main", 4, "main.c", 7)

    record = decode_record(make_record(vector=6, rip=0x10, cs_base=0x7C00), 0, 0, lookup)
    assert asked == [0x7C10] == [record.linear_rip]
    assert record.symbol == Symbol("main", 4, "main.c", 7)
    assert "main+0x4 (main.c:7)" in str(record)


@pytest.mark.parametrize(
    ("rip", "base", "linear"),
    [
        (0x10, 0xFFFF_0000, 0xFFFF_0010),
        (0xFFFF, 0xFFFF_FFF0, 0xFFEF),
        (0xFFFF_FFFF_8000_0000, 0x1000, 0xFFFF_FFFF_8000_0000),
    ],
)
def test_a_linear_address_has_32_bits_outside_64_bit_code(rip, base, linear):
    assert linear_rip(rip, base) == linear


@pytest.mark.parametrize("vector", [9, 15, 31, 32, 255])
def test_a_reserved_vector_is_a_damaged_record(make_record, vector):
    with pytest.raises(TraplineError, match=f"record 3 is damaged: vector {vector} is reserved"):
        decode_record(make_record(vector=vector), 0, 3)


@pytest.mark.parametrize(
    ("flags", "outcome"),
    [
        (RecordFlags.FORWARDED, Outcome.FORWARDED),
        (RecordFlags.COMBINED, Outcome.COMBINED),
        (RecordFlags.SHUTDOWN, Outcome.SHUTDOWN),
        (RecordFlags.DISCARDED, Outcome.DISCARDED),
        (RecordFlags.REPLACED, Outcome.INJECTED),
        (0, Outcome.UNDELIVERED),
        (RecordFlags.FORWARDED | RecordFlags.SYNTHESIZED | RecordFlags.HAS_ERROR_CODE, Outcome.FORWARDED),
    ],
)
def test_what_became_of_it(make_record, flags, outcome):
    assert outcome_of(flags) is outcome
    assert decode_record(make_record(flags=flags), 0, 0).outcome is outcome


@pytest.mark.parametrize(
    ("fields", "text"),
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
        (
            {"vector": 11, "flags": RecordFlags.HAS_ERROR_CODE, "error_code": 0x6A, "exit_int_info": encode(UD)},
            "error 0x6a: the gate of #UD",
        ),
        ({"vector": 13, "flags": RecordFlags.COMBINED}, "-> #DF"),
        ({"vector": 13, "flags": RecordFlags.SHUTDOWN}, "-> shutdown"),
        ({"vector": 13, "flags": RecordFlags.DISCARDED}, "-> discarded"),
        ({"vector": 14, "flags": RecordFlags.REPLACED, "event": encode(GP)}, "-> #GP(0x0)"),
        ({"vector": 8, "flags": RecordFlags.SYNTHESIZED | RecordFlags.FORWARDED}, "synthesized from the two above"),
        ({"vector": 6, "flags": RecordFlags.SYNTHESIZED | RecordFlags.FORWARDED}, None),
        ({"vector": 6, "flags": RecordFlags.FORWARDED}, None),
    ],
)
def test_a_line_of_text(make_record, fields, text):
    line = str(decode_record(make_record(**fields), 0, 0))
    assert "\n" not in line
    if text is None:
        assert not {"error", "address", "->", "synthesized", "while"} & set(line.split())
    else:
        assert text in line
