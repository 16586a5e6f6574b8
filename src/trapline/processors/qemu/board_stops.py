"""Breakpoints and watchpoints of several CPUs, by QEMU's gdbstub: what a stop of the machine means for each CPU.

The stub stops all CPUs and names one, where several may have hit something at once. So all are looked at: whether one
is before a breakpoint. An access to a watchpoint is told with the next stop of the CPU that did it. So where one may
have hit something, all that are in the guest are made to leave (`forcing`), each of which is such a stop.

Whose a CPU is: the host's, while it waits in the monitor or does there what the host has called for; then QEMU knows
nothing new of it (`in_guest` is False). Otherwise it is in the guest, or on the way into it or out of it
(`whereabouts`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from .cpu_stops import CpuStops
from .forcing import force_exit
from .gdb import CpuState, GdbClient, read_registers, read_stop
from .halts import registers_by_cpu
from .places import Inserted, Places, distinct
from .qmp import Qmp
from .whereabouts import Where, where_is

_SLOW: Final = 1.0
"""Seconds after which a step is taken for one that waits for an interrupt."""
_ATTEMPTS: Final = 3
"""How often a CPU is made to leave, before which QEMU may have to tell what it was about to."""


class CpuWithStops(Protocol):
    """What is asked of a CPU here."""

    number: int
    stops: CpuStops

    @property
    def in_guest(self) -> bool:
        """Whether it is in the guest, on the way into it or out of it."""


class BoardStops:
    """Speaks to QEMU's gdbstub about all CPUs."""

    def __init__(
        self, gdb: GdbClient, qmp: Qmp, cpus: Sequence[CpuWithStops], awake: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """`awake`: QEMU is not paused in it."""
        self._gdb, self._cpus, self._awake = gdb, cpus, awake
        self._inserted = Inserted(gdb, qmp)
        self.acknowledge_pause = self._inserted.acknowledge_pause
        self._hits: dict[int, tuple[int, bool]] = {}
        """What CPUs have accessed, by their number, as QEMU said since it stopped."""
        self._named: int | None = None
        """The CPU that QEMU has stopped for an access, and so after it."""

    def apply(self, executing: Sequence[CpuWithStops]) -> None:
        """Set in QEMU what stops these CPUs, before they are entered."""
        wanted = united([cpu.stops.places for cpu in executing])
        if wanted == self._inserted.places:
            return
        with self._awake():
            reply = self._inserted.stop()
            if any(self._inserted.places):
                self._look(reply)
            self._inserted.change(wanted)
            self._gdb.send(b"c")

    def take(self) -> None:
        """Read the stop that QEMU reports, if any, find out what it means for each CPU, and resume QEMU.

        Also for who waits for a CPU, which the stop has stopped as well.
        """
        reply = self._gdb.poll() or b""
        if read_stop(reply).trapped:  # else it is an acknowledgement, or a pause by the user, who has to resume it
            self._look(reply)
            self._gdb.send(b"c")

    def _look(self, reply: bytes) -> None:
        self._hits.clear()
        self._note(reply)
        self._named = next(iter(self._hits), None)
        states = self._states()
        for cpu in self._cpus:
            if self._may_have_trapped(cpu, states[cpu.number]):
                self._step(cpu.number)
                states = self._states()
        stops = bool(self._inserted.places[1]) or any(
            where_is(states[cpu.number], cpu.stops.shared) is Where.GUEST
            and states[cpu.number].code_address in cpu.stops.breakpoints
            for cpu in self._cpus
        )
        for cpu in self._cpus:
            self._sort(cpu, states[cpu.number], stops=stops)

    def _sort(self, cpu: CpuWithStops, state: CpuState, *, stops: bool) -> None:
        """Get a CPU past where it was stopped; `stops`: one has hit something, or may have, and all are to leave."""
        where, address = where_is(state, cpu.stops.shared), state.code_address
        if where is Where.HALTED:
            return
        if where is Where.GUEST and stops:
            self._force(cpu, address)
        elif address in self._inserted.places[0]:
            self._step(cpu.number)
        elif where is Where.OURS and cpu.number in self._hits:
            cpu.stops.note_trap(self._hits[cpu.number])

    def _may_have_trapped(self, cpu: CpuWithStops, state: CpuState) -> bool:
        """Whether QEMU may yet have an access to tell, of a CPU that has left the guest since."""
        where = where_is(state, cpu.stops.shared)
        return (
            where in (Where.OURS, Where.SMM)
            and cpu.in_guest
            and bool(self._inserted.places[1])
            and cpu.number not in self._hits
        )

    def _force(self, cpu: CpuWithStops, address: int) -> None:
        """Make a CPU leave before an instruction."""
        number, stops, gdb = cpu.number, cpu.stops, self._gdb
        gdb.command(b"Hg%x" % (number + 1))  # whose memory is meant
        for _ in range(_ATTEMPTS):
            if force_exit(gdb, stops.shared, stops.memory, address, lambda: self._step(number)):
                stops.note_forced(self._hits.get(number), sure=number == self._named)
                return
            if self._states()[number].code_address != address:
                return  # it has taken the fault of the fetch
            # Otherwise QEMU had yet to stop for an access, of which it has told now.

    def _step(self, number: int) -> None:
        """Execute one instruction of a CPU, while the others stand still."""
        self._gdb.command(b"Hc%x" % (number + 1))  # the step of which ends with any stop
        self._gdb.send(b"vCont;s:%x" % (number + 1))
        self._note(self._gdb.receive_within(_SLOW) or self._gdb.interrupt())

    def _note(self, reply: bytes) -> None:
        stop = read_stop(reply)
        if stop.watched is not None:
            self._hits[stop.cpu] = stop.watched

    def _states(self) -> dict[int, CpuState]:
        printed = registers_by_cpu(self._gdb.monitor("info registers -a").replace("\r", ""))
        return {number: read_registers(text) for number, text in printed.items()}


def united(places: Sequence[Places]) -> Places:
    """Return what stops any of several CPUs."""
    breakpoints = frozenset[int]().union(*(one[0] for one in places))
    return breakpoints, distinct(dict.fromkeys(watched for one in places for watched in one[1]))
