import shutil
import subprocess

import pytest

from tools.initramfs import LINUX_INIT, SMP_INIT, linux_initramfs


def members(archive):
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = archive[at + 110 : at + 109 + fields[11]].decode()
        start = -(-(at + 110 + fields[11]) // 4) * 4
        yield name, fields[1], archive[start : start + fields[6]]
        at = -(-(start + fields[6]) // 4) * 4
        if name == "TRAILER!!!":
            assert at == len(archive)
            return


def test_the_archive_holds_what_was_put_in_it():
    found = {name: (mode, content) for name, mode, content in members(linux_initramfs(b"busy"))}
    assert found["bin/busybox"] == (0o100755, b"busy")
    assert found["init"][1].startswith(b"#!/bin/busybox sh\n")
    assert found["dev/console"][0] == 0o020600
    assert found["faults/ud"][1].startswith(b"\x7fELF")


def test_the_archive_is_the_same_each_time():
    assert linux_initramfs(b"busy") == linux_initramfs(b"busy")


@pytest.mark.parametrize("script", [LINUX_INIT, SMP_INIT])
def test_the_init_script_parses(script):
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("sh is not installed")
    assert subprocess.run([shell, "-n"], input=script, check=True, timeout=10).returncode == 0
