"""What is to stop one CPU of several, and what has stopped it: `board_stops` asks QEMU for all of them."""

from typing import Final

from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import IntCtl
from trapline.machine.linear import code_address
from trapline.machine.memory import GuestMemory
from trapline.machine.processor import Outcome, Watchpoint

from .deliveries import Deliveries
from .facts import Facts
from .layout import SharedMemory
from .places import Places, distinct, hit_by
from .unfinished import is_unfinished

_DB_EXIT: Final = EXCEPTION_EXITS.start + Vector.DB


class CpuStops:
    """The breakpoints and watchpoints of a CPU, and its stop until the hypervisor has been told."""

    def __init__(self, shared: SharedMemory, memory: GuestMemory, facts: Facts) -> None:
        self.shared, self.memory = shared, memory
        self._vmcb = shared.vmcb
        self.breakpoints: frozenset[int] = frozenset()
        self.watchpoints: tuple[Watchpoint, ...] = ()
        self.hit: Watchpoint | None = None
        """The watchpoint that the stop is about."""
        self.forced = False
        """The CPU is on its way out of the guest because it was made to leave."""
        self._sure = False
        """It has done the access that QEMU tells."""
        self.entered: int | None = None
        """Where it was entered last."""
        self._trapped: Watchpoint | None = None
        """Accessed by an instruction that ended in an exit for its #DB."""
        self._deliveries = Deliveries(shared, memory, facts)
        self._fetches = False
        """The vector of an interrupt is to be fetched with the next entry."""

    @property
    def places(self) -> Places:
        """What stops it."""
        return self.breakpoints, self.watchpoints

    def watch(self, watched: tuple[Watchpoint, ...]) -> None:
        """Replace the watchpoints."""
        self.watchpoints = distinct(watched)

    def forget(self) -> None:
        """The CPU was reset: nothing of what it did counts."""
        self.hit = self._trapped = self.entered = None
        self.forced = self._fetches = False
        self._deliveries.reset()

    def note_forced(self, watched: tuple[int, bool] | None, *, sure: bool) -> None:
        """The CPU is on its way out of the guest, made to leave; `watched`: what QEMU says of an access.

        `sure`: the access is done.
        """
        self.forced, self._sure, self.hit = True, sure, hit_by(self.watchpoints, watched)

    def note_trap(self, watched: tuple[int, bool] | None) -> None:
        """The CPU is on its way out of the guest by itself, and has accessed a watchpoint."""
        if self._vmcb.control.exit_code == _DB_EXIT:  # a trap: the instruction is complete
            self._trapped = hit_by(self.watchpoints, watched)

    def take_forced(self) -> bool:
        """Return whether the exit was forced, once."""
        forced, self.forced = self.forced, False
        if forced:
            self._deliveries.cancel()
        return forced

    def outcome(self) -> Outcome | None:
        """Return what a forced exit means; None: nothing, the guest is to go on."""
        hit, save = self.hit, self._vmcb.save
        if hit and not self._sure and is_unfinished(save, self.shared.gprs, self.memory, hit, self.entered):
            self.hit = None
        if self.hit is not None:
            return Outcome.WATCHPOINT
        return Outcome.BREAKPOINT if code_address(save) in self.breakpoints else None

    def take_trap(self) -> bool:
        """Return whether an access is to be told before the exit, once; `hit` is it then."""
        trapped, self._trapped = self._trapped, None
        if trapped is None or trapped not in self.watchpoints:
            return False
        self.hit = trapped
        return True

    def is_wanted(self, outcome: Outcome) -> bool:
        """Say whether a stop that was kept is still one, after what stops the CPU or where it is was changed."""
        if outcome is Outcome.WATCHPOINT:
            return self.hit in self.watchpoints
        return outcome is not Outcome.BREAKPOINT or code_address(self._vmcb.save) in self.breakpoints

    def fetch_vector(self, *, wanted: bool) -> bool:
        """Turn an exit for an interrupt into its injection; True: enter again. `wanted`: it is the hypervisor's.

        It begins with the entry: until then the CPU may be looked at, and what stops it be changed.
        """
        if self._deliveries.fetching:
            return self._deliveries.fetch_vector()
        self._fetches = bool(self.watchpoints) and not wanted and self._vmcb.control.exit_code == ExitCode.INTR
        return self._fetches

    def before_entry(self) -> None:
        """Deliver what TCG would lose, and note where the CPU is."""
        fetches, self._fetches = self._fetches and not self._vmcb.control.int_ctl & IntCtl.V_INTR_MASKING, False
        if self.watchpoints and not (fetches and self._deliveries.fetch_vector()):
            self._deliveries.before_entry(self.watchpoints)
        self.entered = code_address(self._vmcb.save)
