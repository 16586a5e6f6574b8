"""The guests that run in the emulated host, made on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.programs import build
from tools.initramfs import linux_initramfs
from tools.testguests import Unobtainable, linux_kernel, missing_tools, package

MARK = b"trapline:"
"""How the lines of Linux begin that are compared; the others have addresses and times."""
LINUX = "linux"
LIVE = "udloop"
_PROGRAMS: dict[str, dict[str, int]] = {
    "count": {},
    "cpuid": {},
    "shutdown0": {},
    "long": {"COMPARE": 1, "SHORT": 1},
    LIVE: {"N": 1 << 30, "WAIT": 100_000},
}
DOCTOR = "doctor"
CASES = (DOCTOR, "count", "cpuid", "shutdown0", LIVE, "long", LINUX)
_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
echo "trapline: up"
i=0
while [ $i -lt 20 ]; do
    /bin/true
    i=$((i + 1))
done
echo "trapline: processes $i"
echo "trapline: sha256 $(seq 1 1000 | sha256sum | cut -c1-64)"
for fault in /faults/*; do
    $fault 2> /dev/null
    echo "trapline: fault ${fault##*/} status $?"
done
echo "trapline: done"
poweroff -f
"""


def make(folder: Path) -> None:
    """Write the guests into a folder; raises Unobtainable."""
    if missing := missing_tools("nasm"):
        raise Unobtainable(f"{missing[0]} is not installed")
    for name, defines in _PROGRAMS.items():
        build.build(name, folder / f"{name}.img", **defines)
    shutil.copy(linux_kernel(), folder / "kernel")
    busybox = next(path for path in package("busybox-static").glob("**/bin/busybox"))
    (folder / "initrd").write_bytes(linux_initramfs(busybox.read_bytes(), _INIT))
