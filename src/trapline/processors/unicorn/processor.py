"""Unicorn as a processor: VMRUN and #VMEXIT by the manual, on a CPU that has only half of them.

Unicorn's core executes guest code and notices what SVM intercepts. It delivers no event, ends no VMRUN, checks no
VMCB; that is done here, with the model of `arch.delivery`.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from trapline.arch import msr
from trapline.arch.consistency import is_illegal, why_invalid
from trapline.arch.events import VALID, decode, is_software
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.layout import offset_of, size_of, zero
from trapline.arch.registers import Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm.decoder import SVM_MNEMONICS, decode_at_rip
from trapline.devices.machine import BareMachine
from trapline.devices.power import Action
from trapline.errors import ProcessorError, UsageError
from trapline.machine.boot import Boot
from trapline.machine.processor import Capabilities, Outcome, Statistics, Watchpoint

from . import calls, engine
from .bus import MachineBus
from .cpu import Cpu
from .engine import Engine
from .event_window import SECOND, EventWindow
from .forwarding import Forwarding
from .instructions import Instructions
from .memory import Ram
from .state import State
from .uc_context import HF2_NMI, Context

_FIRST_EXCEPTION: Final = engine.VMEXIT + EXCEPTION_EXITS.start
_PHYSICAL_BITS: Final = 40
"""Of the EPYC that Unicorn models."""

_CHANGE_INTERRUPTS: Final = (ExitCode.WRITE_CR8, ExitCode.IRET)


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
        self._boot = boot
        self._started = time.monotonic_ns()
        self.machine = BareMachine(memory, output=output, debug=debug, clock=self._clock, cpus=cpus)
        self._bus = bus = MachineBus(self.machine, physical_bits=_PHYSICAL_BITS)
        self._engine = Engine(memory, bus)
        self.memory = Ram(self._engine.ram, self._engine.forget_code)
        bus.engine, bus.ram = self._engine, self.memory
        self._context = self._engine.context
        buffer = bytearray(size_of(Vmcb))
        self.vmcb = Vmcb.from_buffer(buffer)
        self._control = self.vmcb.control
        self.gprs = Gprs.from_buffer(self._engine.memory, offset_of(Context, "gprs"))
        self.msrpm = self._engine.msrpm
        self._state = State(self._engine, self.vmcb, buffer)
        self._cpu = Cpu(self.vmcb, self.memory, physical_bits=_PHYSICAL_BITS, sets_rf=sets_rf)
        self._forwarding = Forwarding(self.vmcb, self._cpu, self._started)
        self._instructions = Instructions(self.vmcb, self.gprs, self.memory, self.machine, self._context, self._cpu)
        self._cpuids: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self.signature = self.cpuid(1, 0)[0]
        self.capabilities = Capabilities(
            "Unicorn",
            ts_error_code=True,
            hides_svm=False,
            keeps_svme=False,
            physical_bits=_PHYSICAL_BITS,
            sets_rf=sets_rf,
            forwards_set_rf=False,
        )
        self.exit_status: int | None = None
        self.hit: Watchpoint | None = None
        self._exits = 0
        self._stopped = 0
        self._left = self._started
        self._fresh = True
        self._off = False
        self._window = EventWindow(
            self.vmcb, self.machine, bus, self._engine, self._state, self._cpu, self._forwarding, self._started
        )

    @property
    def hints(self) -> list[str]:
        """Devices that the guest looked for and that are not here, in words."""
        return self.machine.hints

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`; the counter goes by nanoseconds."""
        return self._left - self._started

    @property
    def statistics(self) -> Statistics:
        """Counts of the run so far."""
        return Statistics(self._exits, self._stopped / SECOND)

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        self._stopped += time.monotonic_ns() - self._left
        outcome = self._run(deadline)
        self._window.settle()
        self._left = time.monotonic_ns()
        if outcome is Outcome.VMEXIT:
            self._exits += 1
        return outcome

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`. The words themselves are looked up in the VMCB."""
        self._forwarding.set_vectors(forwarded)

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`; not implemented for Unicorn: raises UsageError."""
        if addresses:
            raise UsageError("this processor has no breakpoints yet")

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`; not implemented for Unicorn: raises UsageError."""
        if watched:
            raise UsageError("this processor has no watchpoints yet")

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._forwarding.set_sink(sink)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See `machine.Processor.cpuid`."""
        answer = self._cpuids.get((leaf, subleaf))
        if answer is None:
            answer = self._cpuids[leaf, subleaf] = self._engine.cpuid(leaf, subleaf)
        return answer

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self._window.kick()

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self._fresh = True

    def close(self) -> None:
        """See `machine.Processor.close`."""
        if not self._off:
            self._off = True
            self._window.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _clock(self) -> int:
        return time.monotonic_ns() - self._started

    def _run(self, deadline: float | None) -> Outcome:
        if self._off:
            return Outcome.OFF
        if self._fresh:
            return self._power_on()
        if not self._accept():
            return Outcome.VMEXIT
        cpu, state, bus, attention = self._cpu, self._state, self._bus, self._window
        attention.set_deadline(deadline)
        pacemaker = attention.pacemaker
        while True:
            if bus.attention or cpu.halted or attention.kicked:
                outcome = attention.look()
                if outcome is Outcome.OFF:
                    return self._requested()
                if outcome is not None:
                    return outcome
            pacemaker.running = True
            try:
                event = state.enter(unchanged=cpu.generation is not None)
            finally:
                pacemaker.running = False
            state.collect()
            cpu.generation = state.generation
            if bus.ended:
                continue
            if not self._answer(event):
                return Outcome.VMEXIT

    def _accept(self) -> bool:
        """Check the VMCB and deliver the event to inject; False: that ended in an exit."""
        control, cpu, state = self._control, self._cpu, self._state
        changed = state.changed()
        cpu.generation = None if changed else state.generation
        if changed and why_invalid(self.vmcb) is not None:
            return cpu.exit(ExitCode.INVALID)
        injected = control.event_inj
        if injected & VALID and cpu.redeliver(injected):
            control.event_inj = injected & ~VALID
            return True
        event = decode(injected)
        if event is None:
            return True
        if is_illegal(event, self.vmcb):
            return cpu.exit(ExitCode.INVALID)
        control.event_inj = injected & ~VALID
        return cpu.deliver(event, control.nrip if is_software(event) else None)

    def _answer(self, event: int) -> bool:
        """Do what the CPU stopped for; False: it is a #VMEXIT."""
        vector = event - _FIRST_EXCEPTION
        if 0 <= vector < 32:
            if vector == Vector.GP and not self._context.error_code and self._is_svm():
                vector = Vector.UD
            address = self._engine.vmcb.control.exit_info_2 if vector == Vector.PF else None
            if (self._forwarding.vectors & self._control.intercept_exceptions) >> vector & 1:
                return self._forwarding.forward(vector, self._context.error_code, address)
            return self._cpu.raise_exception(vector, self._context.error_code, address)
        self._cpu.generation = None
        if event >= engine.VMEXIT:
            return self._svm_exit(event - engine.VMEXIT)
        return self._happened(event)

    def _is_svm(self) -> bool:
        """Say whether the guest executes an instruction of SVM, which it has not: Unicorn looks at CPL first."""
        return decode_at_rip(self.vmcb.save, self.memory).mnemonic in SVM_MNEMONICS

    def _power_on(self) -> Outcome:
        """The machine was switched on or reset."""
        self._fresh = self._cpu.halted = False
        self.machine.reset()
        self._bus.ended = False
        for gpa, data in self._boot.loads:
            self.memory.write(gpa, data)
        zero(self.vmcb.control)
        self.vmcb.control.asid = 1
        self._context.hflags2 &= ~HF2_NMI
        number = msr.msrpm_bit(msr.APIC_BASE)
        assert number is not None
        self.msrpm[number // 8] |= 0b11 << number % 8
        return Outcome.RESET

    def _requested(self) -> Outcome:
        request = self.machine.request
        assert request is not None
        if request.action is Action.RESET:
            return self._power_on()
        self.exit_status = request.status if request.action is Action.EXIT else None
        self.close()
        return Outcome.OFF

    def _happened(self, event: int) -> bool:
        """Answer what is no exit of SVM."""
        save = self.vmcb.save
        if event == engine.STOPPED:
            self._bus.attention = True
            return True
        if event == engine.PORT:
            return self._cpu.raise_exception(*self._bus.refusal)
        if event == engine.SYSCALL:
            return self._cpu.finish() if calls.syscall(save, self.gprs) else self._cpu.raise_exception(Vector.UD)
        if event == engine.SYSENTER:
            return self._cpu.finish() if calls.sysenter(save) else self._cpu.raise_exception(Vector.GP)
        if event == engine.LOST and "Fetch" in self._engine.error:
            return self._cpu.raise_exception(Vector.UD)  # a bus without memory reads all ones, FF FF
        raise ProcessorError(f"Unicorn gave up at {save.cs.selector:04x}:{save.rip:x}: {self._engine.error or event}")

    def _svm_exit(self, code: int) -> bool:
        """Answer what Unicorn took for an exit of SVM."""
        if code == ExitCode.VINTR:  # the guest can be interrupted now
            self._bus.attention = True
            return True
        goes_on = self._instructions.answer(code)
        if goes_on is None:
            event = self._state.step(code)
            self._state.collect()
            goes_on = self._answer(event)
        self._bus.attention |= code in _CHANGE_INTERRUPTS
        return goes_on
