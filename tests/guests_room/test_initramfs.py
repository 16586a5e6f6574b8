from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "initramfs.py"


@pytest.fixture(scope="module")
def initramfs():
    spec = importlib.util.spec_from_file_location("initramfs", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["initramfs"] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module


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


def test_the_archive_holds_what_was_put_in_it(initramfs):
    found = {name: (mode, content) for name, mode, content in members(initramfs.linux_initramfs(b"busy"))}
    assert found["bin/busybox"] == (0o100755, b"busy")
    assert found["init"][1].startswith(b"#!/bin/busybox sh\n")
    assert found["dev/console"][0] == 0o020600
    assert found["faults/ud"][1].startswith(b"\x7fELF")


def test_the_archive_is_the_same_each_time(initramfs):
    assert initramfs.linux_initramfs(b"busy") == initramfs.linux_initramfs(b"busy")


def test_the_init_script_parses(initramfs):
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("sh is not installed")
    assert subprocess.run([shell, "-n"], input=initramfs.LINUX_INIT, check=True, timeout=10).returncode == 0
