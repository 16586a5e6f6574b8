"""Breakpoints and watchpoints as QEMU's gdbstub has them: which there may be, and the packets that change them."""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from trapline.errors import ProcessorError, UsageError
from trapline.machine.processor import Watchpoint

from .command import GDB_CHARDEV
from .gdb import GdbClient
from .layout import SharedMemory
from .qmp import Qmp

Places: TypeAlias = tuple[frozenset[int], tuple[Watchpoint, ...]]
"""Breakpoints and watchpoints."""

NOWHERE: Final[Places] = (frozenset(), ())


class Inserted:
    """The breakpoints and watchpoints that QEMU has. Its gdbstub is started at the first use."""

    def __init__(self, gdb: GdbClient, qmp: Qmp) -> None:
        self._gdb, self._qmp = gdb, qmp
        self.started = False
        self.places = NOWHERE

    def stop(self) -> bytes:
        """Stop the machine, which runs, for a change; return the stop reply, which may be that of a hit."""
        if self.started:
            return self._gdb.interrupt()
        self._qmp.human_command(f"gdbserver chardev:{GDB_CHARDEV}")
        self._gdb.send(b"qSupported")
        while not self._gdb.receive().startswith(b"PacketSize"):
            pass  # opening the stub stops the machine, which some versions report
        self.started = True
        return b""

    def acknowledge_pause(self) -> None:
        """Discard what the stub has said: that QEMU was paused, and not by anything that is set here."""
        while self.started and self._gdb.poll() is not None:
            self._gdb.acknowledge()

    def change(self, wanted: Places) -> None:
        """Set in QEMU what is wanted, and nothing else. The machine has to be stopped."""
        packets = changes(self.places, wanted)
        self._gdb.send(*packets)
        for packet in packets:
            if self._gdb.receive() != b"OK":
                raise ProcessorError(f"QEMU's gdbstub refuses {packet.decode()}")
        self.places = wanted


def changes(before: Places, wanted: Places) -> list[bytes]:
    """Return the packets that lead from what is set to what is wanted."""
    found = [b"z0,%x,1" % address for address in sorted(before[0] - wanted[0])]
    found += [b"Z0,%x,1" % address for address in sorted(wanted[0] - before[0])]
    if before[1] != wanted[1]:
        found += [b"z" + _watch(one) for one in before[1]]
        found += [b"Z" + _watch(one) for one in reversed(wanted[1])]  # QEMU checks first what was set last
    return found


def suffices(before: Places, wanted: Places) -> bool:
    """Return whether what is set differs from what is wanted only in more breakpoints."""
    return before[1] == wanted[1] and before[0] >= wanted[0]


def _watch(one: Watchpoint) -> bytes:
    return b"%d,%x,%x" % (4 if one.reads else 2, one.address, one.size)


def distinct(watchpoints: Iterable[Watchpoint]) -> tuple[Watchpoint, ...]:
    """Return the watchpoints; of those that a stop reply cannot tell apart, of one address and kind, the widest."""
    widest: dict[tuple[int, bool], Watchpoint] = {}
    for one in watchpoints:
        known = widest.get((one.address, one.reads), one)
        widest[one.address, one.reads] = max(known, one, key=lambda each: each.size)
    return tuple(widest.values())


def hit_by(watchpoints: Iterable[Watchpoint], watched: tuple[int, bool] | None) -> Watchpoint | None:
    """Return the watchpoint that a stop reply names; None: it names none of these."""
    return next((one for one in watchpoints if (one.address, one.reads) == watched), None)


def check(places: Iterable[tuple[int, int]], unavailable: str | None, shared: SharedMemory) -> None:
    """Raise UsageError where an address with a size cannot be watched; `unavailable`: why none can be."""
    for address, size in places:
        if unavailable is not None:
            raise UsageError(f"breakpoints and watchpoints {unavailable}")
        if address < shared.base + shared.size and address + size > shared.base:
            raise UsageError(f"{address:#x} cannot be watched: trapline's monitor uses this linear address")


def why_unavailable(accelerator: str, command: Sequence[str]) -> str | None:
    """Return why QEMU's gdbstub cannot be used, as the end of a sentence; None: it can."""
    if accelerator != "tcg":
        return f"are not available with --accel {accelerator} yet; --accel tcg has them"
    if any(argument in ("-s", "-gdb", "--gdb") for argument in command):
        return "need QEMU's gdbstub, which -s or -gdb uses already"
    return None
