"""Plain code on which Unicorn crashes ends the run in process, with all that was recorded, and not trapline."""

import json
import shutil
import subprocess
import sys

import pytest

from tests import lines
from tools.fuzzing.raw import BODY, handled

TIMES = 50
"""How often #UD is raised before: fewer than are kept before they are written."""
POLYNOMIAL = """
long double f(long double x)
{
    long double sum = x;
#pragma GCC unroll 300
    for (int i = 0; i < 300; i++)
        sum = sum * x + x;
    return sum;
}
"""
ENABLE_SSE = bytes.fromhex("0f20e0 480d00020000 0f22e0")
"""mov rax, cr4; or rax, OSFXSR; mov cr4, rax."""
KINDS = {
    "x87": (b"\xd8\xc1" * 240, "SIGSEGV", "fadd st, st(1)"),
    "pshufd": (ENABLE_SSE + b"\x66\x0f\x70\xc1\x03" * 500, "SIGSEGV", "pshufd xmm0, xmm1, 3"),
    "control register": (b"\x0f\x20\xc0" * 480, "SIGSEGV", "mov rax, cr0"),
    "lock bts": (b"\xf0\x0f\xab\xd8", "SIGABRT", "(bad)"),
    "polynomial": (None, "SIGSEGV", "fld"),
}


def compiled(folder):
    """Return a function as gcc makes it."""
    if shutil.which("gcc") is None or shutil.which("objcopy") is None:
        pytest.skip("gcc is not installed")
    source, made, code = folder / "f.c", folder / "f.o", folder / "f.bin"
    source.write_text(POLYNOMIAL)
    options = ["-O2", "-c", "-ffreestanding", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"]
    subprocess.run(["gcc", *options, source, "-o", made], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, code], check=True)
    return code.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_ends_the_run_with_all_its_records(kind, tmp_path):
    code, signal, begins = KINDS[kind]
    image, records = tmp_path / "guest.bin", tmp_path / "records.jsonl"
    image.write_bytes(handled(compiled(tmp_path) if code is None else code, TIMES))
    command = [sys.executable, "-m", "trapline", "run", image, "--entry-mode", "64", "--timeout", "100"]
    done = subprocess.run([*command, "--json", "-o", records], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["ending"], summary["exit_code"], summary["recorded"]) == ("failed", 1, TIMES)
    assert int(summary["crash"]["registers"]["rip"], 16) >= BODY
    assert [record["seq"] for record in lines.records(records.read_text())] == list(range(TIMES))
    assert done.stderr.startswith(f"trapline: Unicorn was killed by {signal} in the block of code at 0008:10")
    assert f"which begins with {begins}" in done.stderr
    assert done.stderr.endswith("; try --processor qemu\n")
    assert "Traceback" not in done.stderr


def test_the_summary_of_a_crash_shows_where_it_was(tmp_path):
    image = tmp_path / "guest.bin"
    image.write_bytes(handled(KINDS["x87"][0], TIMES))
    command = [sys.executable, "-m", "trapline", "run", image, "--entry-mode", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 1
    assert "->0000000000100400  d8c1                fadd st, st(1)" in done.stderr
    assert "guest: failed after" in done.stderr
    assert f"{TIMES} exceptions recorded" in done.stderr


LIBRARY = """
import sys, threading, trapline
def seen(exc):
    threads.add(threading.get_ident())
    if exc.seq == 49 and stops: return stops.pop()
threads, stops = set(), [trapline.STOP]
code = open(sys.argv[1], "rb").read()
with trapline.Machine(code, entry_mode=64, exceptions="all", survive_crashes="survive" in sys.argv) as m:
    m.on()(seen)
    m.run()
    print(len(m.exceptions), threads == {threading.get_ident()}, flush=True)
    try:
        m.run()
    except trapline.ProcessorLost as lost:
        print(str(lost).partition(" in ")[0], m.result().ending.name, hex(m.cpus[0].registers.rip))
        try:
            m.run()
        except trapline.UsageError as again:
            print(str(again).partition(" in ")[0])
"""


def test_the_library_survives_by_choice(tmp_path):
    image = tmp_path / "guest.bin"
    image.write_bytes(handled(KINDS["x87"][0], TIMES))
    runs = [
        subprocess.run(
            [sys.executable, "-c", LIBRARY, image, *more], capture_output=True, text=True, check=False, timeout=200
        )
        for more in ([], ["survive"])
    ]
    plain, surviving = [run.stdout.splitlines() for run in runs]
    assert (runs[0].returncode, plain) == (-11, ["49 True"])
    assert (runs[1].returncode, surviving) == (
        0,
        [
            "49 False",
            "Unicorn was killed by SIGSEGV FAILED 0x100400",
            "the guest cannot run any more: Unicorn was killed by SIGSEGV",
        ],
    )
