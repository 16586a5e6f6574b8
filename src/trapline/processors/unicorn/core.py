"""One CPU of the machine: Unicorn's, its VMCB, and what executes VMRUN on it."""

import mmap
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

from trapline.arch import fxsave, msr
from trapline.arch.exits import ExitCode
from trapline.arch.layout import offset_of, size_of, zero
from trapline.arch.registers import Gprs
from trapline.arch.topology import with_topology
from trapline.arch.vmcb import Vmcb
from trapline.devices.machine import BareMachine
from trapline.machine.processor import Outcome

from .address_map import Range, between
from .answers import Answers
from .binding import Binding
from .breakpoints import Breakpoints
from .bus import MachineBus
from .capabilities import PHYSICAL_BITS
from .clock import Clock
from .cpu import Cpu
from .engine import Engine
from .event_window import EventWindow
from .forwarding import Forwarding
from .hook_flags import HookFlags
from .hooks import Hooks
from .host import Host
from .instructions import Instructions
from .interrupts import Interrupts
from .loop import RunLoop
from .memory import Ram
from .pending import Pending
from .simd import SimdChecks
from .state import State
from .uc_context import HF_GUEST, Context
from .watchpoints import Watchpoints

_TURNS: Final = ((ExitCode.PAUSE,), (ExitCode.PAUSE, ExitCode.RDTSC))
"""What several CPUs stop at: where time goes by that of the host, and where it goes by instructions."""
_ANSWERS: Final = 256
"""How many answers of CPUID are remembered: a guest can ask for 2^64."""


class Core:
    """The parts of a CPU, wired."""

    def __init__(
        self,
        number: int,
        machine: BareMachine,
        block: mmap.mmap,
        ram: Ram,
        gaps: Sequence[Range],
        host: Host,
        clock: Clock,
        *,
        note_code: Callable[[int, int], None],
        sets_rf: bool,
        turns: bool,
    ) -> None:
        """`block` holds `ram`, which is mapped but for `gaps`.

        `note_code(gpa, size)` is called for code that the CPU has translated; `sets_rf`: see `Capabilities`. `turns`:
        it executes in turns, and a PAUSE, a HLT and an interrupt that it sends end its own.
        """
        self.number, self.pins = number, machine.cpus[number]
        self.binding = binding = Binding()
        for start, end in between(len(block), gaps):
            binding.map_memory(start, block, start, end)
        buffer = bytearray(size_of(Vmcb))
        self.vmcb = vmcb = Vmcb.from_buffer(buffer)
        self.gprs = gprs = Gprs.from_buffer(binding.context_bytes, offset_of(Context, "gprs"))
        self.pending = pending = Pending(binding.stop_between_instructions)
        bus = MachineBus(machine, number, binding, ram, pending, physical_bits=PHYSICAL_BITS, turns=turns)
        self.hooks = hooks = Hooks(binding, bus, note_code)
        self.breakpoints = Breakpoints(binding, hooks, pending)
        self.engine = engine = Engine(binding, hooks, len(block), gaps)
        self.msrpm = engine.msrpm
        self.state = state = State(binding, engine, vmcb, buffer, _TURNS[clock.counts] if turns else ())
        self.cpu = cpu = Cpu(vmcb, gprs, ram, physical_bits=PHYSICAL_BITS, sets_rf=sets_rf)
        self.forwarding = forwarding = Forwarding(vmcb, gprs, cpu, number, clock)
        self.watchpoints = Watchpoints(vmcb, gprs, binding, hooks, engine, state, ram, pending, traced=clock.counts)
        self.interrupts = interrupts = Interrupts(vmcb, self.pins, state, cpu)
        self.window = EventWindow(machine, pending, interrupts, state, cpu, forwarding, host, clock, alone=not turns)
        self.cpuid = lru_cache(_ANSWERS)(
            engine.cpuid if len(machine.cpus) == 1 else partial(_cpuid, engine, number, len(machine.cpus))
        )
        instructions = Instructions(
            vmcb,
            gprs,
            ram,
            self.pins,
            binding.context,
            cpu,
            pending,
            binding.flush_tlb,
            self.cpuid,
            clock,
            binding.read_msr,
        )
        answers = Answers(vmcb, gprs, binding.context, ram, engine, hooks, cpu, bus, pending, forwarding, instructions)
        flags = HookFlags(vmcb, binding, ram, engine)
        stops = self.breakpoints, self.watchpoints
        simd = SimdChecks(vmcb, binding, hooks, ram, pending)
        self.is_started = not number
        """It executes: it is the boot CPU, or a startup IPI came after its last INIT."""
        self.loop = RunLoop(vmcb, state, cpu, self.window, pending, answers, *stops, flags, simd, binding)

    def reset(self) -> None:
        """Be as after a reset of the machine, but for what the hypervisor writes."""
        self.is_started = not self.number
        self.pending.ended = False
        self._forget()
        zero(self.vmcb.control)
        self.vmcb.control.asid = 1
        self.engine.write_fpu(fxsave.RESET)
        number = msr.msrpm_bit(msr.APIC_BASE)
        assert number is not None
        self.msrpm[number // 8] |= 0b11 << number % 8

    def take_signal(self) -> Outcome | None:
        """Take the INIT or startup IPI that waits; None: there is none."""
        if self.pins.take_init():
            self.is_started = False
            self._forget()
            return Outcome.INIT
        vector = self.pins.take_startup()
        if vector is None:
            return None
        self.is_started = True
        self.vmcb.control.exit_info_1 = vector
        return Outcome.SIPI

    def _forget(self) -> None:
        """Forget what RESET and INIT end."""
        self.cpu.halted = self.state.nmi_blocked = False
        self.loop.reset()

    def save_interrupted(self) -> None:
        """Write the guest's state into the VMCB while a thread that never returns executes it."""
        self.window.service_requests()
        self.binding.save()
        if self.binding.context.hflags & HF_GUEST:
            self.state.collect()


def _cpuid(engine: Engine, number: int, cpus: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    return with_topology(engine.cpuid(leaf, subleaf), leaf, subleaf, apic_id=number, cpus=cpus)
