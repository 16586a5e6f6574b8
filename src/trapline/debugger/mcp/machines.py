"""The machines that are held: stopped guests, to be looked at and run on."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import anyio

from trapline.api import Machine
from trapline.debugger.target import FINAL, Target
from trapline.errors import TraplineError, UsageError
from trapline.hypervisor.stop import StopReason
from trapline.typed import shortened

from .stored import Runs, Stored
from .threads import Worker, in_thread

MOST: Final = 4
"""Machines that are held; the oldest is closed for another one."""
_GONE: Final = FINAL - {StopReason.SHUTDOWN, StopReason.HALTED}
"""After these there is nothing to look at."""


class Held:
    """A machine that is held. One request uses it at a time."""

    def __init__(self, stored: Stored, machine: Machine, worker: Worker) -> None:
        self.stored, self.machine, self.worker = stored, machine, worker
        self.lock = anyio.Lock()
        self.target: Target
        """Set once the machine has stopped at its first instruction."""
        self.told = 0
        """Bytes of the console that the client has."""

    @property
    def is_gone(self) -> bool:
        """Whether there is nothing left to look at."""
        return self.target.stop.reason in _GONE

    def close(self) -> None:
        """Switch it off; its result and its trace are kept."""
        try:
            result = self.machine.result()
            self.stored.document, self.stored.findings = dict(result.to_json()), list(result.findings)
        except TraplineError:  # its processor is lost
            pass
        self.switch_off()

    def switch_off(self) -> None:
        """Switch it off, and let its thread end, whatever the file of its trace says."""
        try:
            self.machine.close()
        finally:
            self.worker.end()


class Machines:
    """The machines that are held, by the numbers of their runs, oldest first."""

    def __init__(self, runs: Runs) -> None:
        self._held: dict[str, Held] = {}
        runs.is_held = self._held.__contains__

    def find(self, number: str | None) -> Held:
        """Return a machine; None: the newest. Raises UsageError."""
        all_held = list(self._held.values())  # other threads close machines
        held = next(reversed(all_held), None) if number is None else self._held.get(number)
        if held is None:
            numbers = ", ".join(each.stored.number for each in all_held) or "none"
            what = "no machine is held" if number is None else f"{shortened(number)}: this machine is not held"
            raise UsageError(f"{what}; held are: {numbers}. stop_at starts one.")
        return held

    @contextlib.asynccontextmanager
    async def using(self, number: str | None) -> AsyncIterator[Held]:
        """Use a machine alone. Raises UsageError."""
        held = self.find(number)
        async with held.lock:
            yield self.find(held.stored.number)

    async def make_room(self) -> str | None:
        """Close the oldest machine if there are too many, and return its number."""
        numbers = list(self._held)
        if len(numbers) < MOST:
            return None
        with contextlib.suppress(UsageError):  # it was closed meanwhile
            async with self.using(numbers[0]) as held:
                await in_thread(lambda work: self.close(numbers[0]), held.worker.start)
            return numbers[0]
        return None

    def add(self, held: Held) -> None:
        """Hold a machine."""
        self._held[held.stored.number] = held

    def remove(self, held: Held) -> None:
        """Do not hold a machine any more that was not to be."""
        self._held.pop(held.stored.number, None)

    def close(self, number: str) -> None:
        """Close a machine, if it is held."""
        held = self._held.pop(number, None)
        if held is not None:
            held.close()

    def close_all(self) -> None:
        """Close all."""
        with contextlib.ExitStack() as closing:
            for held in list(self._held.values()):
                closing.callback(held.switch_off)
            self._held.clear()

    def recorded(self, number: str) -> Machine | None:
        """Return the machine of a run whose trace is not complete; None: it is."""
        held = self._held.get(number)
        return None if held is None else held.machine
