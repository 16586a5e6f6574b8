"""Programs on a processor, driven by the hypervisor."""

import contextlib
import time
from collections.abc import Callable, Sequence
from enum import Enum
from types import TracebackType
from typing import Final, NamedTuple, Self

from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import IntCtl, SaveArea, Vmcb
from trapline.errors import FaultError, ProcessorError
from trapline.hypervisor.exception import InterceptedException, Verdict
from trapline.hypervisor.intercepts import recalc_intercepts
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vcpu import Vcpu
from trapline.hypervisor.vm import Vm
from trapline.machine.memory import GuestMemory
from trapline.machine.processor import Capabilities, Outcome, Processor, Statistics, Watchpoint
from trapline.machine.record import RECORD_SIZE, Record

from . import clean, places
from .program import Program

_SAVE_AT: Final = offset_of(Vmcb, "save")
_SAVE_SIZE: Final = size_of(SaveArea)
_AROUND: Final = b"\xf4" * places.SIZE
"""What surrounds the arena where no paging keeps a program in it."""
_TIME: Final = 0.1
_PATIENCE: Final = 10.0
MOST: Final = 24
"""Exceptions after which a program is stopped."""
_STEPS: Final = 20_000
"""Exits after which a program that is stepped is stopped."""


class End(Enum):
    """How a program ended."""

    HALT = "HLT"
    SHUTDOWN = "shutdown"
    LIMIT = "too many exceptions"
    TIME = "too much time"
    OFF = "it powered off or reset the machine"
    OTHER = "a #VMEXIT without a handler"
    FAILED = "the processor gave up"


class Run(NamedTuple):
    """The result of a program."""

    end: End
    detail: str
    save: SaveArea
    gprs: Gprs
    memory: bytes
    """The arena."""
    records: tuple[Record, ...]


class Runner:
    """Runs programs on a processor, which is opened at the first, and again when a program broke it."""

    def __init__(self, opener: Callable[[], Processor], *, rewrite: bool = False, seconds: float = _TIME) -> None:
        """`rewrite`: the processor keeps what it made of code until the guest itself writes there.

        `seconds` is what a program may take.
        """
        self._seconds = seconds
        self._open = opener
        self._registers = clean.registers(rewrite=rewrite)
        self._clean = clean.state()
        self._records: list[bytes] = []
        self._opened: _Limited | None = None
        self.opened = 0
        """How often a processor was opened."""

    def run(
        self, program: Program, mask: int, *, ask: bool = False, stepped: bool = False, seconds: float | None = None
    ) -> Run:
        """Run a program with exceptions forced; `ask`: an observer looks at each of them; `stepped`: step by step.

        `seconds`: more than what a program may take.
        """
        limited = self._opened or self._begin()
        limited.memory.write(0, program.arena)
        if program.mode == "real":
            for start in range(places.SIZE, places.REACHED, places.SIZE):
                with contextlib.suppress(FaultError):  # the hole below 1 MiB
                    limited.memory.write(start, _AROUND)
        end, detail = self._start(limited, self._clean, self._registers, 0, time_limit=_PATIENCE)
        if end is not End.HALT:
            raise ProcessorError(f"what runs before a program ends with {end.value} {detail}")
        most = _STEPS if stepped else 0
        end, detail = self._start(
            limited, program.save, program.gprs, mask, ask=ask, steps=most, time_limit=seconds or self._seconds
        )
        lost = end in (End.FAILED, End.OFF, End.TIME)
        run = Run(
            end,
            detail,
            SaveArea.from_buffer_copy(limited.vmcb.save),
            Gprs.from_buffer_copy(limited.gprs),
            b"" if lost else limited.memory.read(0, places.SIZE),
            tuple(map(Record.from_buffer_copy, self._records)),
        )
        if lost:
            self.close()
        return run

    def close(self) -> None:
        """Close the processor."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _begin(self) -> "_Limited":
        processor = self._open()
        self._opened = limited = _Limited(processor)
        self.opened += 1
        processor.on_records(self._add)
        outcome = processor.run(time.monotonic() + _PATIENCE)
        if outcome is not Outcome.RESET:
            raise ProcessorError(f"the processor begins with {outcome}")
        return limited

    def _start(
        self,
        limited: "_Limited",
        save: bytes,
        gprs: bytes,
        mask: int,
        *,
        time_limit: float,
        ask: bool = False,
        steps: int = 0,
    ) -> tuple[End, str]:
        vm = Vm(limited, mask=mask, recorders=(Recording(self._add),))
        if ask:
            vm.observers.add(_Onlooker())
        vmcb = limited.vmcb
        memoryview(vmcb).cast("B")[_SAVE_AT : _SAVE_AT + _SAVE_SIZE] = save
        memoryview(limited.gprs).cast("B")[:] = gprs
        control = vmcb.control
        control.event_inj = control.exit_int_info = control.interrupt_shadow = control.nrip = 0
        control.int_ctl = IntCtl.V_INTR_MASKING  # interrupts of the machine do not reach the guest
        recalc_intercepts(vm.vcpu)
        self._records, limited.end, limited.most = [], None, steps or MOST
        deadline = time.monotonic() + time_limit
        vm.vcpu.resets = 1
        try:
            stop = vm.run(deadline) if not steps else vm.step(deadline)
            while stop.reason is StopReason.STEP:
                stop = vm.step(deadline)
        except ProcessorError as error:
            return End.FAILED, str(error)
        end: End | None = limited.end
        if end is not None:
            return end, ""
        if stop.reason is StopReason.SHUTDOWN:
            return End.SHUTDOWN, ""
        if stop.reason is StopReason.TIMEOUT:
            return End.TIME, ""
        if stop.reason in (StopReason.OFF, StopReason.RESET):
            return End.OFF, ""
        return End.OTHER, f"{stop.reason.value}: {stop.detail}"

    def _add(self, records: memoryview) -> None:
        for start in range(0, len(records), RECORD_SIZE):
            self._records.append(bytes(records[start : start + RECORD_SIZE]))


class _Onlooker:
    """An observer that lets everything pass: the hypervisor sees each exception itself."""

    vectors = 0xFFFF_FFFF

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Verdict:
        return Verdict.FORWARD


class _Limited:
    """A processor that is off when the guest halts, or after `MOST` exits."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.vmcb = processor.vmcb
        self.gprs = processor.gprs
        self.msrpm = processor.msrpm
        self.memory: GuestMemory = processor.memory
        self.capabilities: Capabilities = processor.capabilities
        self.signature = processor.signature
        self.exit_status: int | None = None
        self.halted = False
        self.end: End | None = None
        self.most = 0

    def run(self, deadline: float | None) -> Outcome:
        outcome = self._processor.run(deadline)
        if outcome is not Outcome.VMEXIT:
            return outcome
        self.most -= 1
        if self.vmcb.control.exit_code == ExitCode.HLT:
            self.end = End.HALT
        elif self.most < 0:
            self.end = End.LIMIT
        return outcome if self.end is None else Outcome.OFF

    def chips(self) -> None:
        return None

    def read_screen(self) -> bytes:
        return b""

    def read_fpu(self) -> bytes:
        return self._processor.read_fpu()

    def write_fpu(self, image: bytes) -> None:
        self._processor.write_fpu(image)

    @property
    def tsc(self) -> int:
        return self._processor.tsc

    @property
    def tsc_frequency(self) -> int | None:
        return self._processor.tsc_frequency

    @property
    def hints(self) -> Sequence[str]:
        return self._processor.hints

    @property
    def statistics(self) -> Statistics:
        return self._processor.statistics

    def intercepts_changed(self, forwarded: int) -> None:
        set_intercept(self.vmcb.control, ExitCode.HLT)
        self._processor.intercepts_changed(forwarded)

    @property
    def hit(self) -> Watchpoint | None:
        return self._processor.hit

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        self._processor.set_breakpoints(addresses)

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        self._processor.set_watchpoints(watched)

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        self._processor.on_records(sink)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return self._processor.cpuid(leaf, subleaf)

    def kick(self) -> None:
        self._processor.kick()

    def shutdown(self) -> None:
        self._processor.shutdown()

    def close(self) -> None:
        self._processor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
