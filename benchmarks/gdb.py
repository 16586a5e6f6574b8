"""What gdb costs: attached and idle, and a catch whose condition is false."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from trapline.api import STOP, Machine
from trapline.arch.vectors import Vector
from trapline.debugger.gdb.endpoint import Endpoint, Listener
from trapline.debugger.gdb.packets import encode
from trapline.debugger.gdb.server import Server
from trapline.debugger.target import Target
from trapline.hypervisor.exception import Decision
from trapline.session.observing import ExceptionExit
from trapline.session.settings import MachineOptions

from .figures import Table
from .measure import Cost, in_turn, used

TURNS: Final = {"unicorn": 1_000_000_000, "qemu": 2_000_000_000}
"""Some five seconds, so that what starts and ends a run does not count."""
TIMES: Final = {"unicorn": 20_000, "qemu": 5_000}
_END: Final = b"\xb0\xfe\xe6\x64\xf4"
"""mov al, 0xfe; out 0x64, al; hlt: the keyboard controller resets the machine."""
_HANDLER: Final = bytes.fromhex("55 89e5 83460202 5d cf")
"""push bp; mov bp, sp; add word [bp+2], 2; pop bp; iret"""


def gdb(rounds: int, scratch: Path) -> dict[str, Table]:
    """A loop without exceptions with gdb attached, and one of #UD that a catch looks at, on both processors."""
    tables = {}
    for processor, times in TIMES.items():
        tables[f"idle, {processor}"] = _idle(processor, rounds, scratch)
        tables[f"catch, {processor}"] = _catch(processor, times, rounds, scratch)
    return tables


def _idle(processor: str, rounds: int, scratch: Path) -> Table:
    guest = scratch / "quiet.img"
    turns = TURNS[processor]
    guest.write_bytes(_sector(b"\x66\xb9" + struct.pack("<I", turns) + b"\x66\x01\xc8\x66\x49\x75\xf9" + _END))
    found = in_turn(
        {
            "without": partial(_cost, guest, processor, lambda target: target.resume()),
            "gdb, idle": partial(_cost, guest, processor, lambda target: _served(target, scratch)),
        },
        rounds,
    )
    return Table(f"{turns:,} turns of a loop, on {processor}", found, ("without",))


def _catch(processor: str, times: int, rounds: int, scratch: Path) -> Table:
    guest = scratch / "faulting.img"
    guest.write_bytes(_sector(_ud_loop(times)))
    found = in_turn(
        {
            "observer": partial(_cost, guest, processor, _observed),
            "catch": partial(_cost, guest, processor, lambda target: _caught(target, scratch)),
        },
        rounds,
    )
    title = f"{times:,} times #UD with a condition that is false, on {processor}"
    return Table(title, found, ("observer",), times, dict.fromkeys(("observer", "catch")))


def _sector(code: bytes) -> bytes:
    return code.ljust(510, b"\0") + b"\x55\xaa"


def _ud_loop(times: int) -> bytes:
    """Return code of real mode that raises #UD again and again, and handles it."""
    handler = 0x7C00 + 33
    vector = struct.pack("<HHIHH", 0x06C7, 4 * Vector.UD, handler | 0x06C7 << 16, 4 * Vector.UD + 2, 0)
    loop = b"\x66\xb9" + struct.pack("<I", times) + b"\x0f\x0b\x66\x49\x75\xfa" + _END
    return b"\x31\xc0\x8e\xd8" + vector + loop + _HANDLER


def _cost(guest: Path, processor: str, run: Callable[[Target], object]) -> Cost:
    """Return what a run of a guest takes, and the processor time until its end, with all of QEMU's."""
    own: MachineOptions = {"entry_mode": 16} if processor == "unicorn" else {"accel": "tcg"}
    options: MachineOptions = {"processor": processor, "keep": 1000, **own}
    with Machine(guest, **options) as machine:
        target = Target(machine)
        before, start = used(), time.perf_counter()
        run(target)
        seconds = time.perf_counter() - start
    return Cost(seconds, used() - before)


def _observed(target: Target) -> None:
    @target.machine.on(Vector.UD)
    def observe(exc: ExceptionExit) -> Decision | None:
        return STOP if exc.cpl == 3 else None

    target.resume()


def _caught(target: Target, scratch: Path) -> None:
    target.catch("ud if cpl == 3")
    _served(target, scratch)


def _served(target: Target, scratch: Path) -> None:
    """Run a guest to its end for a client of gdb's protocol."""
    path = scratch / "gdb"
    listener = Listener(Endpoint(path=path))
    server = Server(target, listener, attached=True, exit_code=lambda: 0, say=print)
    thread = threading.Thread(target=server.serve)
    with contextlib.closing(listener), socket.socket(socket.AF_UNIX) as client:
        thread.start()
        client.connect(str(path))
        client.sendall(encode(b"c"))
        while b"W00" not in client.recv(4096):
            pass
        thread.join()
