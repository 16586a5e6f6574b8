import json
import subprocess
import sys

import pytest

import trapline

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "run.jsonl"
    return path, trapline.run("sample:gate-not-present", exceptions="all", timeout=60, output=path).exceptions


def test_a_line_is_that_of_a_live_run(trapline_command, trace):
    path, exceptions = trace
    done = trapline_command("show", path)
    assert (done.status, done.err) == (0, "")
    assert done.out == "".join(f"{record.seq:8}  {record}\n" for record in exceptions)
    assert trapline_command("show", path, "--limit", "1").out == f"{0:8}  {exceptions[0]}\n"
    assert trapline_command("show", path, "--last", "1").out == f"{exceptions[-1].seq:8}  {exceptions[-1]}\n"


def test_json_is_what_was_stored(trapline_command, trace):
    path, _ = trace
    stored = path.read_text().splitlines()
    shown = trapline_command("show", path, "--json").out.splitlines()
    assert shown == [line for line in stored if "type" not in json.loads(line)]
    assert trapline_command("show", path, "--format", "json").out.splitlines() == shown


def test_a_record_that_lacks_fields(trapline_command, tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(
        json.dumps({"seq": 3, "vector": 6, "name": "#UD", "symbol": "a\x1b[2J+0x1", "source": "a\n.c:1"}) + "\n"
    )
    assert trapline_command("show", path).out == "       3  #UD   a\\x1b[2J+0x1 (a\\n.c:1)\n"


def test_a_reader_that_leaves_early(tmp_path):
    path = tmp_path / "many.jsonl"
    lines = [json.dumps({"seq": seq, "vector": 6, "name": "#UD"}) for seq in range(20_000)]
    path.write_text("\n".join(lines) + "\n")
    command = f"{sys.executable} -m trapline show {path} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("       0  #UD \n", "")
