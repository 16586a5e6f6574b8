"""The machine around the CPUs: its RAM, its chips, the thread that executes it, and whether it is on."""

import mmap
import time
from collections.abc import Callable
from typing import Final

from trapline.devices import SECOND
from trapline.devices.machine import BareMachine
from trapline.devices.power import Action
from trapline.errors import ProcessorLost, UsageError
from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome, Statistics

from .address_map import holes
from .clock import Clock, host_clock
from .code_copies import CodeCopies
from .core import Core
from .host import Host
from .memory import Ram

_OFF: Final = Outcome.OFF


class Pc:
    """A bare machine with one or several CPUs, of which one executes at a time."""

    def __init__(
        self,
        boot: Boot,
        memory: int,
        *,
        output: Callable[[bytes], object],
        debug: Callable[[bytes], object] | None,
        cpus: int,
        sets_rf: bool,
        turns: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Build the machine, which is off: `switch` answers RESET.

        `turns`: CPUs execute in turns. `clock`: the host's by default. The rest is as for `UnicornProcessor`.
        """
        self._boot, self._output = boot, output
        self.clock = clock = host_clock() if clock is None else clock
        self.devices = BareMachine(memory, output=self._write, debug=debug, clock=self._time, cpus=cpus)
        block = mmap.mmap(-1, memory)
        self._holes = gaps = holes(memory, boot.loads)
        self.ram = ram = Ram(block, self._forget_code)
        self.copies = tuple(CodeCopies(block, ram) for _ in range(cpus)) if turns else ()
        """What each CPU has translated, where they execute in turns."""
        notes = [copies.note for copies in self.copies] or [ram.note_code]
        self.host = host = Host(lambda: self.current.pending.interrupt())
        self.cores = tuple(
            Core(number, self.devices, block, ram, gaps, host, clock, note_code=note, sets_rf=sets_rf, turns=turns)
            for number, note in enumerate(notes)
        )
        self.current = self.cores[0]
        """The CPU that executes, or did so last."""
        self.is_executing = False
        """A run executes guest code; otherwise `switch` answers it."""
        self.exit_status: int | None = None
        self.exits = self.stopped = 0
        """#VMEXITs, and nanoseconds for which the guest was stopped for them."""
        self.left = time.monotonic_ns()
        """When the last run ended, on the clock of `time.monotonic_ns`."""
        self.running = self.closing = False
        self.is_open, self._fresh = True, True
        self._off = self._abandoned = self._leaving = False
        self._received = b""  # for the serial port, before the machine is switched on

    @property
    def statistics(self) -> Statistics:
        """Counts of the run so far."""
        return Statistics(self.exits, self.stopped / SECOND)

    def switch(self) -> Outcome:
        """Switch the machine on, off, or over to what the guest asked it for."""
        if self._off:
            if self._abandoned:
                raise ProcessorLost("Unicorn was given up: it crashed, or did not stop")
            return _OFF
        return self._power_on() if self._fresh else self.answer_request()

    def answer_request(self) -> Outcome:
        """Do what the guest asked its machine for; LEAVING: it loses its state by it, and the next time it is done."""
        request = self.devices.request
        assert request is not None
        self._leaving = not self._leaving and not request.is_success
        self.is_executing = False
        if self._leaving:
            return Outcome.LEAVING
        if request.action is Action.RESET:
            return self._power_on()
        self.exit_status = request.status if request.action is Action.EXIT else None
        self._off = True
        self.host.close()
        return _OFF

    def shutdown(self) -> None:
        """Reset the machine in the next run."""
        self._fresh, self.is_executing = True, False

    def receive(self, data: bytes) -> None:
        """Give the guest's serial port bytes to read; only while the guest is stopped."""
        if self._fresh:  # the reset that is to come would empty the port
            self._received += data
        else:
            self.devices.receive(data)

    def abandon(self, *, crashed: bool, executing: bool) -> None:
        """Give the CPUs up: see `UnicornProcessor.abandon`."""
        if crashed:
            self.host.pacemaker.running = False
            self.host.close()
        if executing:
            self.current.save_interrupted()
        for core in self.cores:
            core.binding.abandon()
        self._abandoned, self._off = True, True
        self.is_open = self.is_executing = False

    def close(self) -> None:
        """Free RAM and Unicorn's memory, at once or as soon as the run ends."""
        self._off = self.closing = True
        self.is_executing = False
        if self.running:
            self.current.window.kick()
        elif self.is_open:
            self.is_open = False
            self.host.close()
            for core in self.cores:
                core.binding.close()
            self.ram.close()

    def check_open(self) -> None:
        """Raise UsageError where the machine is closed."""
        if not self.is_open:
            raise UsageError("the machine is closed")

    def _power_on(self) -> Outcome:
        """The machine was switched on or reset."""
        self._fresh = False
        self.is_executing = True
        self.current = self.cores[0]
        self.devices.reset()
        received, self._received = self._received, b""
        self.devices.receive(received)
        for start, end in self._holes:
            self.ram.write(start, b"\xff" * (end - start))
        for gpa, data in self._boot.loads:
            self.ram.write(gpa, data)
        for core in self.cores:
            core.reset()
        return Outcome.RESET

    def _time(self) -> int:
        return self.clock.now() - self.clock.started

    def _write(self, data: bytes) -> None:
        """Pass on what the guest writes to COM1, after the records of the exceptions before it."""
        forwarding = self.current.forwarding
        if forwarding.waits:
            forwarding.flush()
        self._output(data)

    def _forget_code(self) -> None:
        """Forget what was translated: memory was changed by something other than a CPU."""
        for core in self.cores:
            core.binding.forget_code()
        for copies in self.copies:
            copies.clear()
