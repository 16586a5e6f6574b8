import json
import os
import subprocess
from pathlib import Path

import pytest

LOG = """\
check_exception old: 0xffffffff new 0x6
     0: v=06 e=0000 i=0 cpl=0 IP=0008:0000000000101305 pc=0000000000101305 SP=0010:0000000000112000 env->regs[R_EAX]=0
check_exception old: 0xffffffff new 0xd
     1: v=0d e=0033 i=0 cpl=0 IP=0008:0000000000101305 pc=0000000000101305 SP=0010:0000000000112000 env->regs[R_EAX]=0
check_exception old: 0xd new 0xd
     2: v=08 e=0000 i=0 cpl=0 IP=0008:0000000000101305 pc=0000000000101305 SP=0010:0000000000112000 env->regs[R_EAX]=0
check_exception old: 0x8 new 0xd
Triple fault
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "qemu.log"
    path.write_text(LOG)
    return path


def test_to_stdout(trapline_command, log):
    done = trapline_command("import", "qemu-int", log)
    assert (done.status, done.err) == (0, "5 exceptions imported\n")
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["#UD", "#GP", "#GP", "#DF", "#GP"]


def test_one_exception_is_counted_in_the_singular(trapline_command, tmp_path):
    path = tmp_path / "qemu.log"
    path.write_text("check_exception old: 0xffffffff new 0x6\n")
    assert trapline_command("import", "qemu-int", path).err == "1 exception imported\n"


def test_to_a_file_with_names(trapline_command, log, tmp_path):
    symbols, output = tmp_path / "System.map", tmp_path / "records"
    symbols.write_text("0000000000101300 T main\n")
    assert trapline_command("import", "qemu-int", log, "-o", output, "--symbols", symbols).out == ""
    assert json.loads(output.read_text().splitlines()[0])["symbol"] == "main+0x5"
    done = trapline_command("explain", output)
    assert (done.status, done.err) == (0, "")
    assert "no evidence to explain it" in done.out


def test_a_log_that_is_none(trapline_command, disk):
    done = trapline_command("import", "qemu-int", disk)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"trapline: {disk}: not a log of qemu -d int,cpu_reset: it has no line of one\n"


def test_a_log_that_is_not_there(trapline_command, tmp_path):
    done = trapline_command("import", "qemu-int", tmp_path / "none")
    assert (done.status, done.err) == (2, f"trapline: {tmp_path / 'none'}: No such file or directory\n")


def test_a_file_that_cannot_be_written(trapline_command, log, tmp_path):
    done = trapline_command("import", "qemu-int", log, "-o", tmp_path / "no" / "records")
    assert done.status == 2
    assert done.err == f"trapline: -o {tmp_path / 'no' / 'records'}: No such file or directory\n"


@pytest.mark.parametrize("words", [[], ["-o", "-"], ["-o", "/dev/full"]])
def test_the_output_is_to_blame_where_it_cannot_be_written(in_a_process, log, words):
    with Path("/dev/full").open("w") as full:
        done = in_a_process("import", "qemu-int", log, *words, stdout=full)
    assert done.status == 1
    name = words[1] if words and words[1] != "-" else None
    assert done.err.startswith(f"trapline: {'stdout' if name is None else f'-o {name}'}: No space left on device")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["-o", "-"]])
def test_a_reader_that_has_enough_is_not_an_error(in_a_process, log, words):
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    with reader.stdin as pipe:
        done = in_a_process("import", "qemu-int", log, *words, stdout=pipe)
    assert (done.status, done.err) == (1, "")


def test_a_line_without_end_is_not_read(trapline_command, tmp_path):
    path = tmp_path / "zeros"
    path.write_text(LOG)
    os.truncate(path, 40 << 30)  # sparse
    done = trapline_command("import", "qemu-int", path, "-o", tmp_path / "records")
    assert done.status == 2
    assert done.err == (f"trapline: {path}: line 9 is longer than 65,536 bytes: not a log of qemu -d int,cpu_reset\n")


def test_an_exception_that_there_is_not_is_left_out(trapline_command, tmp_path):
    path = tmp_path / "qemu.log"
    path.write_text("check_exception old: 0xdeadbeef new 0x6\ncheck_exception old: 0xffffffff new 0x6\n")
    assert trapline_command("import", "qemu-int", path).err == "1 exception imported\n"
