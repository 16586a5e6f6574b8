"""docs/exit-codes.md: each example ends with the code that the page says, and says why in one line."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, run
from trapline.cli.parser import parser

PAGE = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
_PLAIN = re.compile(r"trapline [^|&;<>()$`*?\[\]{}~#!\\]*")
"""A command in which a shell has nothing to do: it runs in this process, for trapline takes longer to load."""
EXAMPLES = re.findall(r"^\| [^|]+ \| `([^`]+)` \| (\d+) \|$", PAGE, re.M)
LOG = "check_exception old: 0xffffffff new 0x6\n"
KERNEL = b"\x02\xb0\xad\x1b\x00\x00\x01\x00\xfe\x4f\x51\xe4" + bytes(52)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    files = {
        "disk.img": bytes(510) + b"\x55\xaa",
        "kernel.elf": KERNEL,
        "loop.bin": b"\xeb\xfe",  # jmp to itself
        "fails.bin": b"\xb0\x03\xe6\xf4\xf4",  # mov al, 3; out 0xf4, al; hlt
        "notes.txt": b"milk, bread\n",
        "qemu.log": LOG.encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    subprocess.run(
        [sys.executable, "-m", "trapline", "run", "sample:no-idt", "-o", "crash.jsonl"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return folder


def test_the_page_has_all_codes():
    assert len(EXAMPLES) == len(re.findall("`trapline |`PATH", PAGE))
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \| ", PAGE, re.M) for code in row.split(",")}
    assert codes == {int(code) for code in re.findall(r"^  (\d+) +", parser().epilog, re.M)}
    assert {int(code) for _, code in EXAMPLES} >= {0, 1, 2, 3, 4, 5, 124}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_an_example(folder, monkeypatch, trapline_command, command, code):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    if _PLAIN.fullmatch(command):
        monkeypatch.chdir(folder)
        status, *streams = trapline_command(*shlex.split(command)[1:])
        told = "".join(streams)
    else:
        monkeypatch.setenv("ONLY_TRAPLINE", str(Path(sys.executable).parent))
        status, told = run(command, folder)
    assert status == int(code), told
    if status in (1, 2):
        assert "Traceback" not in told
        assert [line.startswith("trapline: ") for line in told.splitlines()].count(True) == 1, told
        assert status == 1 or told.count("\n") == 1, told
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
