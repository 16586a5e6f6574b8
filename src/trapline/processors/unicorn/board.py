"""Several CPUs on Unicorn, in one thread: each has its turn (`turns`), which also ends in a HLT and at a PAUSE.

A CPU that sends an interrupt to another one ends its turn too. What others have changed of the code that a CPU has
translated is forgotten before its turn. LOCK needs nothing: no turn ends within an instruction.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome

from .clock import InstructionCounter
from .core import Core
from .one_cpu import OneCpu
from .pc import Pc
from .turns import Turns, TurnsBySeed, TurnsByTime

_OFF, _HALTED, _KICKED = Outcome.OFF, Outcome.HALTED, Outcome.KICKED


class UnicornBoard:
    """Implements `machine.Board` in this process."""

    def __init__(
        self,
        boot: Boot,
        memory: int,
        *,
        cpus: int,
        output: Callable[[bytes], object],
        debug: Callable[[bytes], object] | None = None,
        sets_rf: bool = True,
        seed: int | None = None,
    ) -> None:
        """Build a machine with `cpus` CPUs.

        Turns, and the machine's time, are by instructions as `seed` has it, so that the same seed leads to the same
        run; None: they are by time. The rest is as for `UnicornProcessor`.
        """
        counter = InstructionCounter()
        clock = None if seed is None else counter.clock
        self.pc = pc = Pc(boot, memory, output=output, debug=debug, cpus=cpus, sets_rf=sets_rf, turns=True, clock=clock)
        self._turns: Turns = TurnsByTime(pc) if seed is None else TurnsBySeed(pc, counter, seed)
        self.cpus = tuple(BoardCpu(self, pc, core, sets_rf=sets_rf) for core in pc.cores)
        self._kicked = False
        self._last = pc.current
        """The CPU that executed last."""

    def run(self, deadline: float | None) -> tuple[int, Outcome]:
        """See `machine.Board.run`."""
        return self._run(lambda: self._take_turns(deadline))

    def run_alone(self, core: Core, deadline: float | None) -> Outcome:
        """Execute one CPU, and no other."""

        def execute() -> tuple[int, Outcome]:
            while True:
                outcome = self._execute(core, deadline)
                if outcome is _HALTED:
                    outcome = self._rest((core,), deadline)
                if outcome is not None:
                    return core.number, outcome
                self._turns.begin()

        if core is not self.pc.current:
            self._switch(core)
        return self._run(execute)[1]

    def pause(self) -> None:
        """See `machine.Board.pause`: no CPU executes outside `run`."""

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self._kicked = True
        self.pc.current.window.kick()

    def _run(self, execute: Callable[[], tuple[int, Outcome]]) -> tuple[int, Outcome]:
        pc = self.pc
        pc.stopped += time.monotonic_ns() - pc.left
        pc.running = True
        try:
            number, outcome = execute() if pc.is_executing else (pc.current.number, pc.switch())
            if outcome is _OFF and pc.is_executing:
                outcome = pc.answer_request()
            if outcome is Outcome.RESET:
                number = 0
        finally:
            pc.running = False
            if pc.closing:
                pc.close()
        pc.current.window.service_requests()
        pc.left = time.monotonic_ns()
        if outcome is Outcome.VMEXIT:
            pc.exits += 1
        return number, outcome

    def _take_turns(self, deadline: float | None) -> tuple[int, Outcome]:
        """Let one CPU after another execute, until one needs the hypervisor; OFF: the machine has a request."""
        cores, idle = self.pc.cores, 0
        while True:
            core = self.pc.current
            outcome = self._execute(core, deadline)
            if outcome not in (None, _HALTED):
                return core.number, outcome
            idle = idle + 1 if outcome is _HALTED else 0
            if idle == len(cores):
                outcome = self._rest(cores, deadline)
                if outcome is not None:
                    return next(core.number for core in cores if core.is_started), outcome
                idle = 0
            self._switch(cores[(core.number + 1) % len(cores)])

    def _execute(self, core: Core, deadline: float | None) -> Outcome | None:
        """Execute a CPU; None: it gave up its turn, HALTED: it has nothing to execute."""
        if self._take_kick():
            return _KICKED
        signal = core.take_signal()
        if signal is not None:
            self._turns.begin()
            return signal
        if not core.is_started:
            return _HALTED
        if core is not self._last:
            self._last = core
            self._forget_stale(core)
        outcome = self._turns.execute(core, deadline)
        return None if outcome is _KICKED and not self._take_kick() else outcome

    def _take_kick(self) -> bool:
        kicked, self._kicked = self._kicked or self.pc.closing, False
        return kicked

    def _switch(self, core: Core) -> None:
        """Begin the turn of a CPU."""
        pc = self.pc
        pc.current.window.service_requests()
        pc.current = core
        self._turns.begin()
        core.pending.due = True  # what others have sent it

    def _forget_stale(self, core: Core) -> None:
        """Forget what a CPU has translated, if others have changed it."""
        copies = self.pc.copies[core.number]
        if copies.are_stale():
            core.binding.forget_code()
            copies.clear()

    def _rest(self, cores: Sequence[Core], deadline: float | None) -> Outcome | None:
        """Wait, with these CPUs halted, for a timer; HALTED: none will wake any, DEADLINE: there is no time left."""
        pc, started = self.pc, [core for core in cores if core.is_started]
        pc.devices.advance()
        if any(core.interrupts.wait() for core in started):
            return None
        due = pc.devices.next_event()
        if due is None or not any(core.interrupts.can_wake() for core in started):
            return _HALTED
        if deadline is not None and time.monotonic() >= deadline:
            return Outcome.DEADLINE
        self._turns.wait(due, deadline)
        return None


class BoardCpu(OneCpu):
    """Implements `machine.Processor` for one CPU of several."""

    def __init__(self, board: UnicornBoard, pc: Pc, core: Core, *, sets_rf: bool) -> None:
        super().__init__(pc, core, sets_rf=sets_rf)
        self._board = board

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`."""
        clock = self.pc.clock
        return clock.now() if clock.counts else super().tsc

    def run(self, deadline: float | None) -> Outcome:
        """Execute this CPU alone: see `machine.Board.cpus`."""
        return self._board.run_alone(self.core, deadline)

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self._board.kick()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
