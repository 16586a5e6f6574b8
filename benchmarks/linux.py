"""Boots of Debian's kernel to a shell script and off: forced, on four CPUs, with the black box, recorded to files."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tools import testguests
from tools.initramfs import BEGIN, linux_initramfs
from trapline.trace.files import open_trace

from .figures import Table
from .measure import QEMU, Candidates, in_turn, run

TRAPLINE = [sys.executable, "-m", "trapline", "run"]
PLAIN_QEMU = [QEMU, "-cpu", "qemu64,-svm", "-display", "none", "-no-reboot", "-serial", "stdio"]
_APPEND = "console=ttyS0 quiet panic=-1"
_WORK = """\
for i in $(seq {processes}); do (exit 0); /bin/busybox true; done
echo up
poweroff -f
"""
_WITHOUT_BLACK_BOX = """
import sys
import trapline.explain.blackbox
from trapline.cli.main import main
if sys.argv.pop(1) == "without":
    trapline.explain.blackbox.BlackBox.__call__ = lambda *_: None
sys.exit(main())
"""


class _Guest(NamedTuple):
    plain: list[str]
    """The command that runs it on QEMU alone."""
    arguments: list[str]
    """What `trapline run` is told."""

    @property
    def ours(self) -> list[str]:
        return [*TRAPLINE, *self.arguments]


def _guest(scratch: Path, *, processes: int = 100, append: str = "") -> _Guest:
    busybox = next(testguests.package("busybox-static").glob("bin/busybox"))
    kernel, initrd, line = str(testguests.linux_kernel()), scratch / "linux.cpio", f"{_APPEND}{append}"
    initrd.write_bytes(linux_initramfs(busybox.read_bytes(), BEGIN + _WORK.format(processes=processes).encode()))
    plain = [*PLAIN_QEMU, "-m", "256M", "-kernel", kernel, "-initrd", str(initrd), "-append", line]
    return _Guest(plain, [kernel, "--initrd", str(initrd), "--append", line])


def boot(rounds: int, scratch: Path) -> dict[str, Table]:
    """Linux to a shell script and off."""
    guest, log = _guest(scratch), scratch / "int.log"
    candidates: Candidates = {
        "plain QEMU": partial(run, guest.plain),
        "none": partial(run, [*guest.ours, "-e", "none"]),
        "all,!pf": partial(run, [*guest.ours, "-e", "all,!pf"]),
        "all": partial(run, [*guest.ours, "-e", "all"]),
        "none, isolated": partial(run, [*guest.ours, "-e", "none", "--isolate"]),
        "all, isolated": partial(run, [*guest.ours, "-e", "all", "--isolate"]),
        "QEMU -d int": partial(run, [*guest.plain, "-d", "int", "-D", str(log)]),
    }
    found = in_turn(candidates, rounds)
    counts = {"all": {"recorded": _recorded(guest)}, "QEMU -d int": {"bytes of log": log.stat().st_size}}
    return {"boot": Table("Linux to a shell script and off", found, ("plain QEMU", "QEMU -d int"), counts=counts)}


def _recorded(guest: _Guest) -> int:
    done = subprocess.run([*guest.ours, "-e", "all", "--json"], capture_output=True, check=False)
    count: int = json.loads(done.stdout)["recorded"]
    return count


def smp(rounds: int, scratch: Path) -> dict[str, Table]:
    """Linux on four CPUs."""
    guest, four = _guest(scratch, append=" no_timer_check"), ["-smp", "4"]
    candidates: Candidates = {
        "plain QEMU": partial(run, [*guest.plain, *four]),
        "none": partial(run, [*guest.ours, "-e", "none", "--", *four]),
        "all": partial(run, [*guest.ours, "-e", "all", "--", *four]),
    }
    return {"smp": Table("Linux on four CPUs", in_turn(candidates, rounds), ("plain QEMU",))}


def black_box(rounds: int, scratch: Path) -> dict[str, Table]:
    """Linux with many page faults, with the black box that explains a shutdown and without."""
    guest = _guest(scratch, processes=400)
    candidates: Candidates = {
        which: partial(run, [sys.executable, "-c", _WITHOUT_BLACK_BOX, which, "run", *guest.arguments])
        for which in ("without", "with")
    }
    found = in_turn(candidates, rounds)
    counts = {"with": {"recorded": _recorded(guest)}}
    return {"black-box": Table("Linux with many page faults, the black box", found, ("without",), counts=counts)}


def recorded_boot(rounds: int, scratch: Path) -> dict[str, Table]:
    """Linux, recorded to nowhere, to files, and with `-d int` whose log is imported."""
    guest, log = _guest(scratch), scratch / "int.log"
    files = {name: scratch / file for name, file in _FILES.items()}
    more = {"without registers": ["--no-registers"]}
    store = ["-f", "-o", str(scratch / "log.parquet")]
    imported = [sys.executable, "-m", "trapline", "import", "qemu-int", str(log), *store]
    candidates: Candidates = {
        "nowhere": partial(run, guest.ours),
        **{
            name: partial(run, [*guest.ours, "-f", "-o", str(path), *more.get(name, ())])
            for name, path in files.items()
        },
        "-d int, imported": partial(run, [*guest.plain, "-d", "int", "-D", str(log)], imported),
    }
    found = in_turn(candidates, rounds)
    counts = {name: {"recorded": _stored(path), "bytes": path.stat().st_size} for name, path in files.items()}
    peers = ("nowhere", "-d int, imported")
    return {"recorded-boot": Table("Linux, recorded", found, peers, counts=counts)}


_FILES = {"Parquet": "boot.parquet", "without registers": "small.parquet", "JSON lines": "boot.jsonl"}


def _stored(path: Path) -> int:
    with open_trace(path) as trace:
        return sum(batch.num_rows for batch in trace.batches(["seq"]))
