"""A processor that replays a script: for tests, examples and documentation of the hypervisor.

    processor = ScriptedProcessor([Outcome.RESET, vmexit(0x4E, info_2=0x1000)])
    Vm(processor, mask=1 << Vector.PF).run()
    assert processor.entries[-1].vmcb.save.cr2 == 0x1000

Each call of `run` notes what the hypervisor asks for and plays the next step; after the last one the machine is off.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self, TypeAlias

from trapline.arch.events import Event, decode, encode
from trapline.arch.layout import size_of, zero
from trapline.arch.msr import MSRPM_SIZE
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.errors import FaultError

from .processor import Capabilities, Outcome, Statistics, Watchpoint

MANUAL = Capabilities(
    "scripted",
    ts_error_code=True,
    lmsle=True,
    hides_svm=False,
    takes_any_efer=False,
    physical_bits=40,
    sets_rf=True,
    interrupts_keep_rf=True,
    forwards_set_rf=True,
    delivers_as_modelled=True,
)
"""The capabilities of a processor according to the manual."""

Step: TypeAlias = "Outcome | Exception | Callable[[ScriptedProcessor], Outcome | None]"
"""An outcome to return, an error to raise, or a function that changes the state; its None is VMEXIT."""


def vmexit(code: int, *, info_1: int = 0, info_2: int = 0, vectoring: Event | None = None) -> Step:
    """Return a step that leaves the guest with an exit."""

    def step(processor: "ScriptedProcessor") -> None:
        control = processor.vmcb.control
        control.exit_code, control.exit_info_1, control.exit_info_2 = code, info_1, info_2
        control.exit_int_info = encode(vectoring) if vectoring else 0

    return step


def until_kicked(processor: "ScriptedProcessor") -> Outcome:
    """Run, as a step, until `kick` is called."""
    return Outcome.KICKED if processor.take_kick(timeout=10) else Outcome.DEADLINE


def watchpoint(hit: Watchpoint) -> Step:
    """Return a step that stops after an access to watched memory."""

    def step(processor: "ScriptedProcessor") -> Outcome:
        processor.hit = hit
        return Outcome.WATCHPOINT

    return step


class Entry(NamedTuple):
    """What the hypervisor asked for when it called `run`, as copies."""

    vmcb: Vmcb
    gprs: Gprs
    msrpm: bytes
    forwarded: int
    """The mask of vectors that the processor may forward without an exit."""
    deadline: float | None
    breakpoints: frozenset[int]
    watchpoints: tuple[Watchpoint, ...]

    @property
    def event(self) -> Event | None:
        """The event to inject."""
        return decode(self.vmcb.control.event_inj)


class ScriptedMemory:
    """RAM from address 0."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = bytearray(size)

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError where there is no memory."""
        if gpa + size > self.size:
            raise FaultError(gpa, "there is no memory")
        return bytes(self._bytes[gpa : gpa + size])

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises FaultError where there is no RAM."""
        self.read(gpa, len(data))
        self._bytes[gpa : gpa + len(data)] = data


class ScriptedProcessor:
    """Implements `machine.Processor` by a script. What happened is in `entries` and `commands`."""

    def __init__(self, script: Iterable[Step], capabilities: Capabilities = MANUAL) -> None:
        self.script = deque(script)
        """The steps that are left."""
        self.capabilities = capabilities
        self.vmcb = Vmcb.from_buffer(bytearray(size_of(Vmcb)))
        self.gprs = Gprs.from_buffer(bytearray(size_of(Gprs)))
        self.msrpm = memoryview(bytearray(MSRPM_SIZE))
        self.memory = ScriptedMemory(1 << 16)
        self.signature = 0x0080_0F12
        self.tsc = 0
        self.tsc_frequency: int | None = None
        self.exit_status: int | None = None
        self.hints: list[str] = []
        self.halted = False
        self.statistics = Statistics(exits=0, stopped=0.0)
        self.hit: Watchpoint | None = None
        self.answers: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        """What CPUID returns, by leaf and subleaf; zeros for all others."""
        self.fpu = b""
        """An image of FXSAVE; empty: not known."""
        self.entries: list[Entry] = []
        """What the hypervisor asked for at each call of `run`."""
        self.commands: list[str] = []
        """The other calls, in order, by name."""
        self.sink: Callable[[memoryview], None] = lambda records: None
        """Where a step may put records of forwarded exceptions."""
        self._forwarded = 0
        self._breakpoints: frozenset[int] = frozenset()
        self._watchpoints: tuple[Watchpoint, ...] = ()
        self.kicks: threading.Event = threading.Event()
        """Set by `kick`; CPUs of one machine have the same."""

    def run(self, deadline: float | None) -> Outcome:
        """Note what is asked for, then play the next step."""
        if self.take_kick():
            if self.script and self.script[0] is until_kicked:  # the kick came before it
                self.script.popleft()
            return Outcome.KICKED
        vmcb, gprs = Vmcb.from_buffer_copy(self.vmcb), Gprs.from_buffer_copy(self.gprs)
        stops = self._breakpoints, self._watchpoints
        self.entries.append(Entry(vmcb, gprs, bytes(self.msrpm), self._forwarded, deadline, *stops))
        step = self.script.popleft() if self.script else Outcome.OFF
        if isinstance(step, Exception):
            raise step
        outcome = step if isinstance(step, Outcome) else step(self) or Outcome.VMEXIT
        if outcome in (Outcome.RESET, Outcome.WOKEN):
            zero(self.vmcb.control)
        return outcome

    def chips(self) -> None:
        """Nothing is known of any."""

    def read_screen(self) -> bytes:
        """There is no screen."""
        return b""

    def read_fpu(self) -> bytes:
        """Return `fpu`."""
        return self.fpu

    def write_fpu(self, image: bytes) -> None:
        """Set `fpu`."""
        self.fpu = image

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`."""
        self._forwarded = forwarded

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Note them for the next entry; a step decides what is hit."""
        self._breakpoints = addresses

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """Note them for the next entry; a step decides what is hit."""
        self._watchpoints = watched

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self.sink = sink

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer from `answers`."""
        return self.answers.get((leaf, subleaf), (0, 0, 0, 0))

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self.commands.append("kick")
        self.kicks.set()

    def take_kick(self, timeout: float = 0) -> bool:
        """Wait for a kick, and clear it; False: there was none."""
        kicked = self.kicks.wait(timeout)
        self.kicks.clear()
        return kicked

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self.commands.append("shutdown")

    def close(self) -> None:
        """See `machine.Processor.close`."""
        self.commands.append("close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
