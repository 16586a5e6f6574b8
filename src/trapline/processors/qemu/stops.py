"""Breakpoints and watchpoints under TCG, by QEMU's gdbstub: the guest cannot see them, and there can be any number.

The stub compares linear addresses in every mode and stops the whole machine. What the hypervisor needs is a #VMEXIT at
that instruction, and it is forced: while the machine is stopped, INT3 is written over the instruction's first byte,
one step executes it and leaves through the SWINT intercept, and the byte is restored. Nothing else runs meanwhile.

To get past a breakpoint the hypervisor wants none for one instruction. QEMU then keeps those that were set: to set and
remove one the machine has to be stopped, for milliseconds. It loses the one that was hit, while it is stopped anyway.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeAlias

from trapline.arch.exits import EXCEPTION_EXITS
from trapline.arch.registers import EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.errors import FaultError, ProcessorError, UsageError
from trapline.machine.linear import code_address, translate
from trapline.machine.memory import GuestMemory
from trapline.machine.processor import Outcome, Watchpoint

from .command import GDB_CHARDEV
from .gdb import CpuState, GdbClient, read_registers, read_stop
from .layout import PML4_AT, SharedMemory
from .qmp import Qmp

_INT3: Final = b"cc"
_NO_EXIT: Final = 0x7777_7777
"""An exit code that no CPU writes."""
_DB_EXIT: Final = EXCEPTION_EXITS.start + Vector.DB

Places: TypeAlias = tuple[frozenset[int], tuple[Watchpoint, ...]]
"""Breakpoints and watchpoints."""


class Stops:
    """The breakpoints and watchpoints that are wanted, those that QEMU has, and what a hit of one means."""

    def __init__(
        self,
        gdb: GdbClient,
        qmp: Qmp,
        shared: SharedMemory,
        memory: GuestMemory,
        unavailable: str | None,
        awake: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`unavailable`: why the stub cannot be used, as the end of a sentence. `awake`: QEMU is not paused in it."""
        self._gdb = gdb
        self._qmp = qmp
        self._vmcb = shared.vmcb
        self._memory = memory
        self._shared = shared
        self._unavailable, self._awake = unavailable, awake
        self._started = False
        self._set: Places = (frozenset(), ())
        """The breakpoints and watchpoints that QEMU has."""
        self.breakpoints: frozenset[int] = frozenset()
        self.watchpoints: tuple[Watchpoint, ...] = ()
        self.hit: Watchpoint | None = None
        self._outcome: Outcome | None = None
        """What the forced exit that is on its way means."""
        self._pending: Watchpoint | None = None
        """Accessed by an instruction that ended in an exit for its #DB: reported before that."""

    def __bool__(self) -> bool:
        return bool(self.breakpoints or self.watchpoints)

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`; they count from the next `apply` on."""
        self._check((address, 1) for address in addresses)
        self.breakpoints = addresses

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`; they count from the next `apply` on."""
        self._check((one.address, one.size) for one in watched)
        self.watchpoints = distinct(watched)

    def _check(self, places: Iterable[tuple[int, int]]) -> None:
        for address, size in places:
            if self._unavailable is not None:
                raise UsageError(f"breakpoints and watchpoints {self._unavailable}")
            if address < self._shared.base + self._shared.size and address + size > self._shared.base:
                raise UsageError(f"{address:#x} cannot be watched: trapline's monitor uses this linear address")

    def apply(self) -> None:
        """Set in QEMU what is wanted, before an entry: the monitor is waiting for it."""
        wanted = (self.breakpoints, self.watchpoints)
        if wanted == self._set or (self._leaves_at_once() and suffices(self._set, wanted)):
            return
        with self._awake():
            if self._started:
                self._gdb.interrupt()
            else:
                self._start()
            self._change(wanted)
            self._gdb.send(b"c")

    def take_pending(self) -> bool:
        """Return whether an access is still to be reported; `hit` is it then."""
        pending, self._pending = self._pending, None
        if pending is None or pending not in self.watchpoints:
            return False
        self.hit = pending
        return True

    def take_outcome(self) -> Outcome | None:
        """Return what a forced exit means, once; None: the exit is the guest's own."""
        outcome, self._outcome = self._outcome, None
        return outcome

    def forget(self) -> None:
        """Discard what the stub has said: that QEMU was paused, and not by anything that is set here."""
        while self._started and self._gdb.poll() is not None:
            self._gdb.acknowledge()

    def take(self) -> None:
        """Read the stop that QEMU reports, if any, force an exit if the guest hit something, and resume QEMU."""
        reply = self._gdb.poll()
        stop = read_stop(reply or b"")
        if not stop.trapped:
            return  # an acknowledgement, or a pause by the user, who has to resume it
        state = read_registers(self._gdb.monitor("info registers"))
        hit = next((one for one in self.watchpoints if (one.address, one.reads) == stop.watched), None)
        if not self._is_guest(state):
            self._pass(hit)
        elif hit or state.code_address in self.breakpoints:
            if self._force_exit(state.code_address):
                self.hit, self._outcome = hit, Outcome.WATCHPOINT if hit else Outcome.BREAKPOINT
                self._remove(state.code_address)
        else:
            self._remove(state.code_address)
        self._gdb.send(b"c")

    def _leaves_at_once(self) -> bool:
        """Whether the guest leaves after one instruction: by the trap of TF, if not before."""
        return bool(self._vmcb.save.rflags & RFLAGS.TF and self._vmcb.control.intercept_exceptions >> Vector.DB & 1)

    def _remove(self, address: int) -> None:
        """Take a breakpoint out of QEMU, if it is set there. The machine has to be stopped."""
        breakpoints, watchpoints = self._set
        self._change((breakpoints - {address}, watchpoints))

    def _change(self, wanted: Places) -> None:
        """Set in QEMU what is wanted, and nothing else. The machine has to be stopped."""
        packets = changes(self._set, wanted)
        self._gdb.send(*packets)
        for packet in packets:
            if self._gdb.receive() != b"OK":
                raise ProcessorError(f"QEMU's gdbstub refuses {packet.decode()}")
        self._set = wanted

    def _start(self) -> None:
        self._qmp.human_command(f"gdbserver chardev:{GDB_CHARDEV}")
        self._gdb.send(b"qSupported")
        while not self._gdb.receive().startswith(b"PacketSize"):
            pass  # opening the stub stops the machine, which some versions report
        self._started = True

    def _is_guest(self, state: CpuState) -> bool:
        """Whether the CPU executes the guest, not the firmware's entry or the monitor."""
        ours = self._shared.base + PML4_AT  # of the firmware too, as soon as it has SVM
        return bool(state.efer & EFER.SVME) and not state.in_smm and state.cr3 != ours

    def _pass(self, hit: Watchpoint | None) -> None:
        """Get past a stop in the firmware or the monitor."""
        if hit is None:
            self._gdb.command(b"s")
        elif self._vmcb.control.exit_code == _DB_EXIT:  # a trap: the instruction is complete
            self._pending = hit

    def _force_exit(self, address: int) -> bool:
        """Make the guest leave before the instruction at a linear address; False: its fetch faults, unseen.

        An intercepted fault of the fetch does as well as INT3: it is raised again when the guest is resumed.
        """
        control, gdb = self._vmcb.control, self._gdb
        control.exit_code = _NO_EXIT
        gdb.send(b"m%x,1" % address, b"M%x,1:%b" % (address, _INT3), b"s")
        byte, stored, _ = gdb.receive(), gdb.receive(), gdb.receive()
        left = control.exit_code != _NO_EXIT
        if stored == b"OK":
            self._put_back(address, byte, in_guest=not left)
        return left and code_address(self._vmcb.save) == address

    def _put_back(self, address: int, byte: bytes, *, in_guest: bool) -> None:
        """Restore the byte: by its linear address in the guest, by its physical one in the monitor (`tables`)."""
        try:
            where = address if in_guest else translate(self._vmcb.save, self._memory, address)
        except FaultError as error:
            raise ProcessorError(f"the breakpoint at {address:#x} cannot be taken out of memory: {error}") from error
        if self._gdb.command(b"M%x,1:%b" % (where, byte)) != b"OK":
            raise ProcessorError(f"the breakpoint at {address:#x} cannot be taken out of memory")


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


def distinct(watchpoints: tuple[Watchpoint, ...]) -> tuple[Watchpoint, ...]:
    """Return the watchpoints; of those that a stop reply cannot tell apart, of one address and kind, the widest."""
    widest: dict[tuple[int, bool], Watchpoint] = {}
    for one in watchpoints:
        known = widest.get((one.address, one.reads), one)
        widest[one.address, one.reads] = max(known, one, key=lambda each: each.size)
    return tuple(widest.values())


def why_unavailable(accelerator: str, command: Sequence[str]) -> str | None:
    """Return why QEMU's gdbstub cannot be used, as the end of a sentence; None: it can."""
    if accelerator != "tcg":
        return f"are not available with --accel {accelerator} yet; --accel tcg has them"
    if any(argument in ("-s", "-gdb", "--gdb") for argument in command):
        return "need QEMU's gdbstub, which -s or -gdb uses already"
    return None
