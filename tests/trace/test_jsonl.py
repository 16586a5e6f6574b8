import json
import subprocess
import sys

from hypothesis import given

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.vectors import VECTORS
from trapline.machine.record import GENERAL, Record, RecordFlags
from trapline.trace.exception_record import outcome_of
from trapline.trace.jsonl import json_lines

HEX = ("cs_base", *GENERAL, "cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6")


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
        lines = list(json_lines(data, 7))
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
                "outcome": outcome_of(flags).value,
                "injected": event_of(record.event),
                "synthesized": bool(flags & RecordFlags.SYNTHESIZED),
            }

    check()


def test_lines_are_written_without_numpy():
    source = (
        "import sys; from trapline.machine.record import Record; from trapline.trace.jsonl import json_lines; "
        "(line,) = json_lines(bytes(Record()), 0); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_64_bit_value_survives_a_reader_of_doubles(make_record):
    (line,) = json_lines(make_record(rip=(1 << 64) - 1), 0)
    assert int(json.loads(line)["rip"], 16) == (1 << 64) - 1


def test_a_reserved_event_type_is_its_number(make_record):
    (line,) = json_lines(make_record(exit_int_info=encode(Event(6, 5))), 0)
    assert json.loads(line)["vectoring"] == {"vector": 6, "type": "5", "error_code": None}
