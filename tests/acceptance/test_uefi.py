"""EFI programs of our own under OVMF."""

import re

import pytest

from tests.acceptance.runs import read_lines, summed_up, trapline
from tests.programs.efi import build_efi
from trapline.errors import ProcessorMissing
from trapline.processors.qemu.uefi import find_uefi

SOURCE = build_efi.Path(build_efi.__file__).with_name("faults.c")
PC = ("-nodefaults",)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return a function that builds the program."""
    if missing := build_efi.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    try:
        find_uefi()
    except ProcessorMissing as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("efi")
    return lambda name, *options, **form: build_efi.build(SOURCE, folder / name, *options, **form)


def test_its_exceptions_are_forced_and_named(program, tmp_path):
    records = tmp_path / "records.jsonl"
    run = summed_up(
        program("faults.efi"),
        "all",
        tmp_path,
        "--isolate",
        "--console",
        str(tmp_path / "console.txt"),
        "-o",
        str(records),
        machine=PC,
    )
    said = re.findall(rb"^efi: (.*)\r$", run.console, re.MULTILINE)
    assert said == [b"up", b"after #UD", b"after #GP", b"after #PF"]
    assert (run.status, run.summary["ending"]) == (0, "debug exit")
    assert run.counts() == {6: 1, 13: 1, 14: 1}
    assert [record["vector"] for record in read_lines(records)] == [6, 13, 14]
    assert [row["first"]["symbol"]["name"] for row in run.summary["counts"]] == ["raise_ud", "raise_gp", "raise_pf"]


def test_a_fault_that_nothing_handles_is_explained_with_the_name_of_the_image(program):
    image = program("broken.efi", "-DUNHANDLED", stripped=True)
    run = trapline("run", str(image), "--timeout", "200", "--memory", "128M", "--", *PC)
    assert run.status == 3
    assert re.search(r"#UD.* at 0038:[0-9a-f]{16}\s+broken\.efi\+0x1[0-9a-f]{3}", run.words), run.words
    assert "Cause:" in run.words
