import json

import pytest

from trapline.guests.samples import SAMPLES


def test_the_table_has_every_sample(trapline_command):
    done = trapline_command("samples")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    for sample in SAMPLES:
        (line,) = (line for line in lines if line.startswith(f"{sample.name} "))
        assert all(f"#{vector.name}" in line for vector in sample.vectors)
        assert sample.end.value in line
    assert max(map(len, lines)) <= 80


def test_the_same_as_json(trapline_command):
    done = trapline_command("samples", "--json")
    rows = json.loads(done.out)
    assert [row["name"] for row in rows] == [sample.name for sample in SAMPLES]
    by_name = {row["name"]: row for row in rows}
    assert by_name["pf"] == {
        "name": "pf",
        "description": "a read and a write of a page that is not mapped",
        "vectors": [14],
        "end": "done",
    }
    assert by_name["no-ist"]["end"] == "shutdown"


def test_an_unknown_sample_is_one_line(trapline_command):
    done = trapline_command("run", "sample:triple")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("trapline: no sample guest is called 'triple'")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("mask", ["none", "all"])
def test_a_sample_is_run_as_a_kernel(trapline_command, play, mask):
    opened = play(exit_status=1)
    assert trapline_command("run", "sample:ud", "-e", mask, "--processor", "qemu").status == 0
    option, _ = opened.settings["guest"]
    assert option == "-kernel"
