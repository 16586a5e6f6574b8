"""What gdb costs: attached and idle, and a catch whose condition is false, in seconds of processor time."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import struct
import threading
from collections.abc import Callable
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

from .measure import Costs, in_turn, print_costs

TURNS: Final = 400_000_000
TIMES: Final = {"unicorn": 20_000, "qemu": 5_000}
_END: Final = b"\xb0\xfe\xe6\x64\xf4"
"""mov al, 0xfe; out 0x64, al; hlt: the keyboard controller resets the machine."""
_HANDLER: Final = bytes.fromhex("55 89e5 83460202 5d cf")
"""push bp; mov bp, sp; add word [bp+2], 2; pop bp; iret"""


def gdb(rounds: int, scratch: Path) -> None:
    """A loop without exceptions, and one of #UD, on both processors."""
    quiet, faulting = scratch / "quiet.img", scratch / "faulting.img"
    quiet.write_bytes(_sector(b"\x66\xb9" + struct.pack("<I", TURNS) + b"\x66\x01\xc8\x66\x49\x75\xf9" + _END))
    for processor, times in TIMES.items():
        faulting.write_bytes(_sector(_ud_loop(times)))
        costs = in_turn(
            {
                "without": lambda: _cost(quiet, processor, lambda target: target.resume()),  # noqa: B023  # called here
                "gdb, idle": lambda: _cost(quiet, processor, lambda target: _served(target, scratch)),  # noqa: B023
            },
            rounds,
        )
        print_costs(f"{TURNS:,} turns of a loop, on {processor}", costs, against=("without",))
        print(f"  in pairs, the median: {_in_pairs(costs, 'gdb, idle', 'without'):.3f}")
        costs = in_turn(
            {
                "observer": lambda: _cost(faulting, processor, _observed),  # noqa: B023
                "catch": lambda: _cost(faulting, processor, lambda target: _caught(target, scratch)),  # noqa: B023
            },
            rounds,
        )
        print_costs(f"{times:,} times #UD with a condition that is false, on {processor}", costs, against=("observer",))
        print(f"  in pairs, the median: {_in_pairs(costs, 'catch', 'observer'):.3f}")


def _in_pairs(costs: Costs, ours: str, theirs: str) -> float:
    return statistics.median(a.seconds / b.seconds for a, b in zip(costs[ours], costs[theirs], strict=True))


def _sector(code: bytes) -> bytes:
    return code.ljust(510, b"\0") + b"\x55\xaa"


def _ud_loop(times: int) -> bytes:
    """Return code of real mode that raises #UD again and again, and handles it."""
    handler = 0x7C00 + 33
    vector = struct.pack("<HHIHH", 0x06C7, 4 * Vector.UD, handler | 0x06C7 << 16, 4 * Vector.UD + 2, 0)
    loop = b"\x66\xb9" + struct.pack("<I", times) + b"\x0f\x0b\x66\x49\x75\xfa" + _END
    return b"\x31\xc0\x8e\xd8" + vector + loop + _HANDLER


def _cost(guest: Path, processor: str, run: Callable[[Target], object]) -> float:
    """Return the processor time of this process and of QEMU for a run of a guest."""
    options: MachineOptions = {"entry_mode": 16} if processor == "unicorn" else {"accel": "tcg"}
    with Machine(guest, processor=processor, keep=1000, **options) as machine:
        target = Target(machine)
        before = _used(resource.RUSAGE_SELF)
        children = _used(resource.RUSAGE_CHILDREN)
        run(target)
        ours = _used(resource.RUSAGE_SELF) - before
    return ours + _used(resource.RUSAGE_CHILDREN) - children


def _used(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


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
