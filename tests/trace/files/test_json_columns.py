"""Lines are read many at once, as each alone would be."""

import json
import time

import pytest

from trapline.errors import UsageError
from trapline.machine.record import RECORD_SIZE
from trapline.trace.exceptions import Exceptions
from trapline.trace.files import open_trace
from trapline.trace.jsonl import json_lines

pytest.importorskip("pyarrow")

COUNT = 1000


@pytest.fixture(scope="module")
def lines():
    """Return the lines of many records: more than are read at once."""
    return list(json_lines(bytes(COUNT * RECORD_SIZE), 0))


def changed(line, change):
    return json.dumps(json.loads(line) | change) + "\n"


def read(path, columns=None):
    with open_trace(path) as trace:
        return [row for batch in trace.batches(columns) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    "change",
    [
        *({"rip": text} for text in ("0x", "0xAB", "1f", "x01", "0x1 0x2", "0x1g", "0x" + "1" * 17, "\u0660x1", "")),
        {"tsc": 1 << 64},
        {"vcpu": 1 << 32},
        {"vector": 32},
        {"outcome": "lost"},
        {"vectoring": {"vector": 14, "type": "exception"}},
    ],
    ids=str,
)
def test_a_damaged_line_among_many_is_told_by_its_number(tmp_path, lines, change):
    place = COUNT // 2
    path = tmp_path / "run.jsonl"
    path.write_text("".join([*lines[:place], changed(lines[place], change), *lines[place + 1 :]]))
    (member,) = change
    with pytest.raises(UsageError, match=rf"^{path}: line {place + 1} is damaged: .*{member}"):
        read(path, [member])


def test_what_is_not_a_record_is_left_out(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    later = ['{"type":"later","seq":[]}\n', changed(lines[0], {"type": "other"})]
    path.write_text("".join([*later, *lines[:600], *later, *lines[600:], lines[0][:50]]))
    assert read(path) == Exceptions(bytes(COUNT * RECORD_SIZE)).to_arrow().to_pylist()


def test_null_is_a_missing_value(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    missing = dict.fromkeys(("rip", "cr0", "vcpu", "outcome", "synthesized"))
    path.write_text("".join(changed(line, missing) if number % 3 else line for number, line in enumerate(lines)))
    rows = read(path, [*missing, "mode"])
    whole = Exceptions(bytes(RECORD_SIZE)).to_arrow().select([*missing, "mode"]).to_pylist()[0]
    assert rows == [dict.fromkeys(whole) if number % 3 else whole for number in range(COUNT)]


def test_lines_are_read_faster_than_one_by_one(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(lines * 4))
    read(path, ["vector"])

    def seconds(work):
        spent = []
        for _ in range(3):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        return min(spent)

    def columns():
        with open_trace(path) as trace:
            assert sum(batch.num_rows for batch in trace.batches(["vector", "rip"])) == 4 * COUNT

    assert seconds(columns) < seconds(lambda: [json.loads(line) for line in path.read_text().splitlines()])
