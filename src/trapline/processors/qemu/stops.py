"""Breakpoints and watchpoints under TCG, by QEMU's gdbstub: the guest cannot see them, and there can be any number.

The stub compares linear addresses in every mode and stops the whole machine. What the hypervisor needs is a #VMEXIT at
that instruction, and it is forced (`forcing`).

To get past a breakpoint the hypervisor wants none for one instruction. QEMU then keeps those that were set: to set and
remove one the machine has to be stopped, for milliseconds. It loses the one that was hit, while it is stopped anyway.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from trapline.arch.exits import EXCEPTION_EXITS
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.machine.memory import GuestMemory
from trapline.machine.processor import Outcome, Watchpoint

from .forcing import force_exit
from .gdb import GdbClient, read_registers, read_stop
from .layout import SharedMemory
from .places import Inserted, check, distinct, hit_by, suffices
from .qmp import Qmp
from .whereabouts import Where, where_is

_DB_EXIT: Final = EXCEPTION_EXITS.start + Vector.DB


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
        self._vmcb = shared.vmcb
        self._memory = memory
        self._shared = shared
        self._unavailable, self._awake = unavailable, awake
        self._inserted = Inserted(gdb, qmp)
        self.acknowledge_pause = self._inserted.acknowledge_pause
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
        check(((address, 1) for address in addresses), self._unavailable, self._shared)
        self.breakpoints = addresses

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`; they count from the next `apply` on."""
        check(((one.address, one.size) for one in watched), self._unavailable, self._shared)
        self.watchpoints = distinct(watched)

    def apply(self) -> None:
        """Set in QEMU what is wanted, before an entry: the monitor is waiting for it."""
        wanted, places = (self.breakpoints, self.watchpoints), self._inserted.places
        if wanted == places or (self._leaves_at_once() and suffices(places, wanted)):
            return
        with self._awake():
            self._inserted.stop()
            self._inserted.change(wanted)
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

    def take(self) -> None:
        """Read the stop that QEMU reports, if any, force an exit if the guest hit something, and resume QEMU."""
        reply = self._gdb.poll()
        stop = read_stop(reply or b"")
        if not stop.trapped:
            return  # an acknowledgement, or a pause by the user, who has to resume it
        state = read_registers(self._gdb.monitor("info registers"))
        hit = hit_by(self.watchpoints, stop.watched)
        address = state.code_address
        where = where_is(state, self._shared)
        if where in (Where.OURS, Where.SMM):
            self._pass(hit, where)
        elif hit or address in self.breakpoints:
            if force_exit(self._gdb, self._shared, self._memory, address, self._step):
                self.hit, self._outcome = hit, Outcome.WATCHPOINT if hit else Outcome.BREAKPOINT
                self._remove(address)
        else:
            self._remove(address)
        self._gdb.send(b"c")

    def _leaves_at_once(self) -> bool:
        """Whether the guest leaves after one instruction: by the trap of TF, if not before."""
        return bool(self._vmcb.save.rflags & RFLAGS.TF and self._vmcb.control.intercept_exceptions >> Vector.DB & 1)

    def _remove(self, address: int) -> None:
        """Take a breakpoint out of QEMU, if it is set there. The machine has to be stopped."""
        breakpoints, watchpoints = self._inserted.places
        self._inserted.change((breakpoints - {address}, watchpoints))

    def _step(self) -> bytes:
        return self._gdb.command(b"s")

    def _pass(self, hit: Watchpoint | None, where: Where) -> None:
        """Get past a stop outside the guest, or in a handler of an SMI."""
        if hit is None:
            self._step()
        elif where is Where.OURS and self._vmcb.control.exit_code == _DB_EXIT:  # a trap: the instruction is complete
            self._pending = hit
