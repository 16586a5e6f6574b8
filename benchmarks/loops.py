"""One #UD and one #PF in a long-mode loop under QEMU: recorded and forwarded by the monitor, and with `-d int`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from tests.programs import build

from .figures import Table
from .linux import PLAIN_QEMU, TRAPLINE
from .measure import in_turn, run

TIMES: Final = 300_000
EXIT_DEVICE: Final = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]


def loops(rounds: int, scratch: Path) -> dict[str, Table]:
    """#UD and #PF in a long-mode loop."""
    return {name: _loop(name, rounds, scratch) for name in ("ud", "pf")}


def _loop(name: str, rounds: int, scratch: Path) -> Table:
    image, log = build.build(f"{name}loop", scratch / f"{name}.img", N=TIMES), scratch / "int.log"
    plain = [*PLAIN_QEMU, "-m", "128M", "-drive", f"file={image},format=raw", *EXIT_DEVICE]
    ours = [*TRAPLINE, str(image), "--memory", "128M", "-e"]
    found = in_turn(
        {
            "plain QEMU": partial(run, plain),
            "QEMU -d int": partial(run, [*plain, "-d", "int", "-D", str(log)]),
            "none": partial(run, [*ours, "none", "--", *EXIT_DEVICE]),
            "all": partial(run, [*ours, "all", "--", *EXIT_DEVICE]),
        },
        rounds,
    )
    log.unlink()
    title = f"{TIMES:,} times #{name.upper()} in a long-mode loop"
    shares: dict[str, str | None] = {"all": "none", "QEMU -d int": "plain QEMU"}
    return Table(title, found, ("QEMU -d int",), TIMES, shares)
