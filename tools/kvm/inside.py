"""Runs in the emulated host: guests under plain KVM, and under trapline with KVM; a JSON line for each comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tools.kvm.guests import CASES, DOCTOR, LINUX, LIVE, MARK
from trapline.arch.vectors import FORCEABLE
from trapline.errors import TraplineError
from trapline.hypervisor.vm import Vm
from trapline.processors.qemu.launch import open_qemu
from trapline.processors.qemu.programs import find_bios

_MEMORY = "128M"
_LIMIT = 400.0
_TRAPLINE = (sys.executable, "-m", "trapline")
_APPEND = "console=ttyS0 quiet panic=-1 tsc=reliable"
_MASKS = ("none", "all")
_CHANGES = 1.0
"""Seconds in which a new mask has to be in force; on a machine that is not emulated it takes far less."""


class Row(NamedTuple):
    """What was compared, and what came of it."""

    case: str
    seconds: float
    difference: str
    """Empty: none."""


def rows(folder: Path, chosen: tuple[str, ...]) -> Iterator[Row]:
    """Run the chosen cases, or all."""
    for case in chosen or CASES:
        if case == DOCTOR:
            yield timed(case, _doctor)
        elif case == LIVE:
            yield timed(case, partial(_live_mask, folder))
        else:
            yield from _compare(folder, case)


def _compare(folder: Path, name: str) -> Iterator[Row]:
    start = time.monotonic()
    plain = _plain(folder, name)
    yield Row(f"{name} plain", time.monotonic() - start, "" if plain else "it printed nothing")
    for mask in _MASKS:
        yield timed(f"{name} {mask}", partial(_compare_with, plain, folder, name, mask))


def _compare_with(plain: list[bytes], folder: Path, name: str, mask: str) -> str:
    return difference(plain, _under_trapline(folder, name, mask))


def timed(case: str, check: Callable[[], str]) -> Row:
    """Return the row of a check, which returns a difference."""
    start = time.monotonic()
    try:
        found = check()
    except (subprocess.SubprocessError, AssertionError, OSError, TraplineError) as error:
        found = f"{type(error).__name__}: {error}"
    return Row(case, time.monotonic() - start, found)


def difference(plain: list[bytes], ours: list[bytes]) -> str:
    """Return the first line that differs, empty if none does."""
    for number, (one, other) in enumerate(zip([*plain, b"<end>"], [*ours, b"<end>"], strict=False), 1):
        if one != other:
            return f"line {number}: plain {one.decode(errors='replace')!r}, trapline {other.decode(errors='replace')!r}"
    return ""


def _guest(folder: Path, name: str) -> tuple[list[str], list[str]]:
    """Return how plain QEMU and trapline are told of a guest."""
    if name == LINUX:
        kernel, initrd = str(folder / "kernel"), str(folder / "initrd")
        return ["-kernel", kernel, "-initrd", initrd, "-append", _APPEND], [
            *(kernel, "--initrd", initrd, "--append", _APPEND),
        ]
    image = str(folder / f"{name}.img")
    return ["-drive", f"file={image},format=raw"], [image]


def _lines(name: str, console: bytes) -> list[bytes]:
    lines = console.splitlines()
    return [line for line in lines if line.startswith(MARK)] if name == LINUX else lines


def _plain(folder: Path, name: str) -> list[bytes]:
    command = ["qemu-system-x86_64", "-machine", "pc,smm=off,accel=kvm", "-cpu", "host,-svm,kvm=off", "-m", _MEMORY]
    command += [*_guest(folder, name)[0], "-bios", str(find_bios()), "-serial", "stdio", "-display", "none"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-no-reboot"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT, check=False)
    return _lines(name, done.stdout)


def _under_trapline(folder: Path, name: str, mask: str) -> list[bytes]:
    options = ["--memory", _MEMORY, "--processor", "qemu", "--accel", "kvm", "--timeout", str(_LIMIT), "-e", mask]
    with tempfile.NamedTemporaryFile() as console:
        command = [*_TRAPLINE, "run", *_guest(folder, name)[1], *options, "--console", console.name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT + 60, check=False)
        expected = 3 if name.startswith("shutdown") else 0
        assert done.returncode == expected, f"exit code {done.returncode}: {done.stderr.decode()[-300:]}"
        return _lines(name, Path(console.name).read_bytes())


def _doctor() -> str:
    done = subprocess.run([*_TRAPLINE, "doctor", "--json"], capture_output=True, timeout=_LIMIT, check=False)
    findings = json.loads(done.stdout)["findings"]
    if any(one["name"] == "accel kvm" and one["fine"] for one in findings):
        return ""
    return "; ".join(f"{one['name']}: {one['detail']}" for one in findings if not one["fine"])


def _live_mask(folder: Path) -> str:
    """Change the mask of a guest that spins, again and again; each change has to be in force soon."""
    records = 0

    def count(new: memoryview) -> None:
        nonlocal records
        records += len(new)

    guest, serial = _guest(folder, LIVE)[0], ["-serial", "null"]
    with open_qemu(guest=guest, memory=128 << 20, accelerator="kvm", serial=serial) as cpu:
        cpu.on_records(count)
        vm = Vm(cpu, mask=FORCEABLE)
        thread = threading.Thread(target=vm.run, args=(time.monotonic() + _LIMIT,))
        thread.start()
        try:
            _wait(lambda: records > 0, "a record")
            longest = 0.0
            for mask in (0, FORCEABLE, 0, FORCEABLE):
                begin = time.monotonic()
                vm.set_exception_mask(mask)
                longest = max(longest, time.monotonic() - begin)
                before = records
                time.sleep(1)
                assert (records > before) is bool(mask), f"mask {mask:#x}, and {records - before} bytes of records"
            assert longest < _CHANGES, f"a change of the mask took {longest:.1f} s"
        finally:
            cpu.close()
            thread.join()
    return ""


def _wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _LIMIT / 4
    while not condition():
        assert time.monotonic() < end, f"{what}: never came"
        time.sleep(0.05)


def main(folder: str, *chosen: str) -> None:
    """Write the rows into a file of the shared folder."""
    with Path(folder, "rows").open("a", encoding="utf-8", buffering=1) as file:
        for row in rows(Path(folder), chosen):
            file.write(json.dumps(row._asdict()) + "\n")
            os.fsync(file.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
