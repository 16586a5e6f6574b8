"""Unicorn as a processor: VMRUN and #VMEXIT by the manual, on a CPU that has only half of them.

Unicorn's core executes guest code and notices what SVM intercepts. It delivers no event, ends no VMRUN, checks no
VMCB; that is done here, with the model of `arch.delivery`.
"""

import mmap
import time
from collections.abc import Callable
from functools import lru_cache, partial
from types import TracebackType
from typing import Final, Self

from trapline.arch.cpuid import EAX, FEATURES
from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.devices import SECOND, text_screen
from trapline.devices.machine import BareMachine
from trapline.devices.power import Action
from trapline.errors import ProcessorLost, UsageError
from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome, Statistics, Watchpoint

from .address_map import between, holes
from .answers import Answers
from .binding import Binding
from .breakpoints import Breakpoints
from .bus import MachineBus
from .capabilities import PHYSICAL_BITS, capabilities
from .cpu import Cpu
from .engine import Engine
from .event_window import EventWindow
from .forwarding import Forwarding
from .hook_flags import HookFlags
from .hooks import Hooks
from .instructions import Instructions
from .interrupts import Interrupts
from .loop import RunLoop
from .memory import Ram
from .pending import Pending
from .power_on import PowerOn
from .simd import SimdChecks
from .state import State
from .uc_context import HF_GUEST, Context
from .watchpoints import Watchpoints

_ANSWERS: Final = 256
"""How many answers of CPUID are remembered: a guest can ask for 2^64."""
_VMEXIT: Final = Outcome.VMEXIT
_OFF: Final = Outcome.OFF


class UnicornProcessor:
    """Implements `machine.Processor` in this process, with a bare machine around the CPU."""

    def __init__(
        self,
        boot: Boot,
        memory: int,
        *,
        output: Callable[[bytes], object],
        debug: Callable[[bytes], object] | None = None,
        cpus: int = 1,
        sets_rf: bool = True,
    ) -> None:
        """Build the machine; its first `run` answers RESET.

        `memory` is in bytes; `output` gets what the guest writes to COM1, `debug` what it writes to port 0xE9.
        `sets_rf`: the flags that a fault pushes have RF set, as the manual has it and QEMU 7.2 does not.
        """
        self._output = output
        self._open, self._running, self._closing = True, False, False
        self._started = time.monotonic_ns()
        self.machine = machine = BareMachine(memory, output=self._write, debug=debug, clock=self._clock, cpus=cpus)
        self.chips = machine.chips
        self._binding = binding = Binding()
        ram = mmap.mmap(-1, memory)
        gaps = holes(memory, boot.loads)
        for start, end in between(memory, gaps):
            binding.map_memory(start, ram, start, end)
        self.memory = Ram(ram, binding.forget_code)
        self.read_screen = partial(self.memory.read, text_screen.ADDRESS, text_screen.SIZE)
        buffer = bytearray(size_of(Vmcb))
        self.vmcb = vmcb = Vmcb.from_buffer(buffer)
        self.gprs = Gprs.from_buffer(binding.context_bytes, offset_of(Context, "gprs"))
        self._pending = pending = Pending(binding.stop_between_instructions)
        bus = MachineBus(machine, binding, self.memory, pending, physical_bits=PHYSICAL_BITS)
        hooks = Hooks(binding, bus, self.memory.note_code)
        self._breakpoints = Breakpoints(binding, hooks, pending)
        self._engine = engine = Engine(binding, hooks, memory, gaps)
        self.msrpm = engine.msrpm
        self._state = state = State(binding, engine, vmcb, buffer)
        self._power = PowerOn(boot, gaps, machine, self.memory, vmcb, engine, state)
        self._cpu = cpu = Cpu(vmcb, self.gprs, self.memory, physical_bits=PHYSICAL_BITS, sets_rf=sets_rf)
        self._forwarding = forwarding = Forwarding(vmcb, self.gprs, cpu, self._started)
        self._watchpoints = Watchpoints(vmcb, self.gprs, binding, hooks, engine, state, self.memory, pending)
        interrupts = Interrupts(vmcb, machine, state, cpu)
        self._window = EventWindow(machine, pending, interrupts, state, cpu, forwarding, self._started)
        self._cpuid = lru_cache(_ANSWERS)(engine.cpuid)
        instructions = Instructions(
            vmcb, self.gprs, self.memory, machine, binding.context, cpu, binding.flush_tlb, self.cpuid
        )
        answers = Answers(
            vmcb, self.gprs, binding.context, self.memory, engine, hooks, cpu, bus, pending, forwarding, instructions
        )
        flags = HookFlags(vmcb, binding, self.memory, engine)
        stops = self._breakpoints, self._watchpoints
        simd = SimdChecks(vmcb, binding, hooks, self.memory, pending)
        self._loop = RunLoop(vmcb, state, cpu, self._window, pending, answers, *stops, flags, simd, binding)
        self.signature = self.cpuid(FEATURES, 0)[EAX]
        self.capabilities = capabilities(sets_rf=sets_rf)
        self.exit_status: int | None = None
        self.tsc_frequency: int | None = 1_000_000_000
        self._exits = self._stopped = 0
        self._left, self._fresh = self._started, True
        self._off = self._abandoned = self._leaving = False

    @property
    def hints(self) -> list[str]:
        """Sentences about devices that the guest accessed and that the machine does not have."""
        return self.machine.hints

    @property
    def halted(self) -> bool:
        """See `machine.Processor.halted`."""
        return self._cpu.halted

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`; the counter goes by nanoseconds."""
        return self._left - self._started

    @property
    def hit(self) -> Watchpoint | None:
        """See `machine.Processor.hit`."""
        return self._loop.hit

    @property
    def statistics(self) -> Statistics:
        """Counts of the run so far."""
        return Statistics(self._exits, self._stopped / SECOND)

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        self._stopped += time.monotonic_ns() - self._left
        self._running = True
        try:
            if self._off:
                if self._abandoned:
                    raise ProcessorLost("Unicorn was given up: it crashed, or did not stop")
                outcome = _OFF
            elif self._fresh:
                outcome = self._power_on()
            elif self._leaving:
                outcome = self._requested()
            else:
                outcome = self._loop.run(deadline)
                if outcome is _OFF:
                    outcome = self._requested()
        finally:
            self._running = False
            if self._closing:
                self.close()
        self._window.service_requests()
        self._left = time.monotonic_ns()
        if outcome is _VMEXIT:
            self._exits += 1
        return outcome

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`. The words themselves are read in the VMCB."""
        self._forwarding.set_vectors(forwarded)

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`."""
        self._check_open()
        self._breakpoints.set(addresses)

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`."""
        self._check_open()
        self._watchpoints.set(watched)

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._forwarding.set_sink(sink)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See `machine.Processor.cpuid`."""
        self._check_open()
        return self._cpuid(leaf, subleaf)

    def read_fpu(self) -> bytes:
        """See `machine.Processor.read_fpu`."""
        self._check_open()
        return self._engine.read_fpu()

    def write_fpu(self, image: bytes) -> None:
        """See `machine.Processor.write_fpu`."""
        self._check_open()
        self._engine.write_fpu(image)

    def receive(self, data: bytes) -> None:
        """Give the guest's serial port bytes to read; only while the guest is stopped."""
        if self._fresh:  # the reset that is to come would empty the port
            self._power.received += data
        else:
            self.machine.receive(data)

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self._window.kick()

    @property
    def unanswered(self) -> float:
        """For how many seconds Unicorn has been told to stop, and has not."""
        return self._window.pacemaker.unanswered

    def abandon(self, *, crashed: bool, executing: bool) -> None:
        """Give the CPU up, whose thread does not return: because Unicorn crashed, or for another reason.

        What was recorded reaches the sink. `executing`: the thread is in Unicorn; the VMCB then gets the state at the
        beginning of the block of code that it executes.
        """
        if crashed:
            self._window.pacemaker.running = False
            self._window.close()
        if executing:
            self._window.service_requests()
            self._binding.save()
            if self._binding.context.hflags & HF_GUEST:
                self._state.collect()
        self._binding.abandon()
        self._abandoned, self._off, self._open = True, True, False

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self._fresh = True

    def close(self) -> None:
        """See `machine.Processor.close`. RAM and Unicorn's memory are freed at once, or as soon as `run` ends."""
        self._off = self._closing = True
        if self._running:
            self.kick()
        elif self._open:
            self._open = False
            self._window.close()
            self._binding.close()
            self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _clock(self) -> int:
        return time.monotonic_ns() - self._started

    def _write(self, data: bytes) -> None:
        """Pass on what the guest writes to COM1, after the records of the exceptions before it."""
        if self._forwarding.waits:
            self._forwarding.flush()
        self._output(data)

    def _power_on(self) -> Outcome:
        """The machine was switched on or reset."""
        self._fresh = self._cpu.halted = self._pending.ended = False
        self._loop.reset()
        self._power.prepare()
        return Outcome.RESET

    def _requested(self) -> Outcome:
        request = self.machine.request
        assert request is not None
        self._leaving = not self._leaving and not request.is_success
        if self._leaving:
            return Outcome.LEAVING
        if request.action is Action.RESET:
            return self._power_on()
        self.exit_status = request.status if request.action is Action.EXIT else None
        self._off = True
        self._window.close()
        return Outcome.OFF

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError("the machine is closed")
