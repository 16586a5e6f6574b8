"""The interface of a processor: it executes VMRUN on a VMCB and returns with a #VMEXIT."""

from collections.abc import Callable, Sequence
from enum import Enum
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.devices.chips import ChipState

from .memory import GuestMemory


class Outcome(Enum):
    """Why `Processor.run` returned."""

    VMEXIT = "vmexit"
    """The VMCB holds the exit."""
    RESET = "reset"
    """The machine was switched on or reset: the control area is zero, the vCPU starts as after a reset."""
    WOKEN = "woken"
    """The guest had the machine sleep in S3, and it woke up: as RESET, but the guest goes on by what it left in RAM."""
    KICKED = "kicked"
    """`kick` was called; the guest is stopped between two instructions."""
    DEADLINE = "deadline"
    """The deadline passed; the guest still runs if the processor is another process."""
    HALTED = "halted"
    """The guest waits for an interrupt, and nothing can raise one."""
    LEAVING = "leaving"
    """The guest has asked its machine to end with a failure or to reset: its state can be read; the next `run` does it.

    A processor that loses no state by it, or cannot know before, leaves it out.
    """
    OFF = "off"
    """The guest powered the machine off, or ended it by a debug exit."""
    BREAKPOINT = "breakpoint"
    """The guest is stopped before the instruction at an address of `set_breakpoints`."""
    WATCHPOINT = "watchpoint"
    """The guest is stopped after the instruction that accessed the watchpoint `Processor.hit`."""
    INIT = "init"
    """The CPU, one of several, took an INIT: it starts as after one, and waits for a startup IPI."""
    SIPI = "sipi"
    """The startup IPI came that the CPU waited for: EXITINFO1 holds its vector."""


class Watchpoint(NamedTuple):
    """Bytes of memory that stop the guest when they are accessed."""

    address: int
    """The linear address of the first byte."""
    size: int
    """How many bytes."""
    reads: bool
    """Whether reads stop the guest as well as writes."""


class Capabilities(NamedTuple):
    """What a processor can do."""

    name: str
    """For reports: `unicorn`, `qemu`."""
    ts_error_code: bool
    """EXITINFO1 holds the error code of an intercepted #TS, which the manual does not define."""
    lmsle: bool
    """VMRUN takes EFER.LMSLE, where CPUID does not deny it."""
    hides_svm: bool
    """CPUID shows the guest a CPU without SVM, and need not be intercepted."""
    takes_any_efer: bool
    """A write to EFER raises no #GP: it changes what the CPU has, even where the manual refuses the value."""
    physical_bits: int
    """Width of a guest-physical address."""
    sets_rf: bool
    """The flags that a fault pushes have RF set (APM 3.1.6)."""
    interrupts_keep_rf: bool
    """The flags that an interrupt or an NMI pushes have RF as it was (APM 3.1.6); otherwise it is set."""
    forwards_set_rf: bool
    """For an injected fault the hypervisor must set RF; otherwise the processor sets it as for its own."""
    delivers_as_modelled: bool
    """It delivers events as the model in `arch.delivery` does."""


class Statistics(NamedTuple):
    """What a run cost."""

    exits: int
    """#VMEXITs that were handled in this process; those that the processor handled itself are not counted."""
    stopped: float
    """Seconds for which the guest was stopped for them."""


class Processor(Protocol):
    """Executes VMRUN. Its departures from the manual are corrected below this interface."""

    @property
    def capabilities(self) -> Capabilities:
        """What the processor can do."""

    @property
    def vmcb(self) -> Vmcb:
        """The VMCB that `run` executes: a view, not a copy. Valid while the guest is stopped."""

    @property
    def gprs(self) -> Gprs:
        """The general registers except RAX and RSP, which are in the VMCB."""

    @property
    def msrpm(self) -> memoryview:
        """The MSR permission map that the VMCB points at, `MSRPM_SIZE` bytes."""

    @property
    def memory(self) -> GuestMemory:
        """The guest's physical memory."""

    @property
    def tsc(self) -> int:
        """The time stamp counter at the last #VMEXIT."""

    @property
    def tsc_frequency(self) -> int | None:
        """How many ticks of the time stamp counter a second has; None: unknown. Only while the guest is stopped."""

    @property
    def statistics(self) -> "Statistics":
        """The cost of the run so far."""

    @property
    def exit_status(self) -> int | None:
        """After OFF the status of a debug exit, (value << 1) | 1; None: a plain power off."""

    @property
    def halted(self) -> bool:
        """Whether the stopped guest waits in HLT."""

    def chips(self) -> ChipState | None:
        """Return the state of the machine's chips. Only while the guest is stopped; None: not known."""

    def read_screen(self) -> bytes:
        """Return the memory of the screen in text mode (`devices.text_screen`). Only while the guest is stopped.

        Empty: there is no screen.
        """

    def read_fpu(self) -> bytes:
        """Return the x87, MMX and SSE registers as FXSAVE stores them (`arch.fxsave`).

        Only while the guest is stopped. Empty: not known.
        """

    def write_fpu(self, image: bytes) -> None:
        """Load the x87, MMX and SSE registers as FXRSTOR does. Only while the guest is stopped.

        Raises UsageError where the processor cannot, and for bits of MXCSR that are reserved.
        """

    @property
    def hints(self) -> Sequence[str]:
        """Devices that the guest probed and the machine lacks, as sentences."""

    @property
    def signature(self) -> int:
        """Family, model and stepping, as CPUID function 1 gives them in EAX."""

    @property
    def hit(self) -> Watchpoint | None:
        """After WATCHPOINT: the watchpoint that was accessed, the first in the order of `set_watchpoints`."""

    def run(self, deadline: float | None) -> Outcome:
        """Execute VMRUN and return at the next #VMEXIT that needs the hypervisor.

        `deadline` is on the clock of `time.monotonic`. Raises ProcessorError when the machine is lost.

        While `control.int_ctl` has V_INTR_MASKING, the interrupts of the machine are held pending whatever RFLAGS.IF
        is: the host's RFLAGS.IF masks them, which counts as clear (APM vol. 2, 15.21.1). NMIs are not held.
        """

    def intercepts_changed(self, forwarded: int) -> None:
        """Take note of new intercepts in the VMCB.

        `forwarded` is a mask of intercepted vectors that the processor may record and give back to the guest
        by itself, as long as nothing was being delivered when they were raised.
        """

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Stop with BREAKPOINT before an instruction at one of these linear addresses executes.

        Also where it is the first one of a `run`: to execute it, remove the address first. An event in EVENTINJ is
        delivered before. The set replaces the previous one, and a reset of the machine keeps it. The guest cannot see
        it in its memory, flags and debug registers. Only while the guest is stopped. Raises UsageError where the
        processor cannot do it.
        """

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """Stop with WATCHPOINT after an instruction that accessed any of these bytes.

        As the CPU's own data breakpoints trap (APM vol. 2, 13.1.4): the instruction, or one iteration of it under REP,
        is complete, RIP is on the next one, and `hit` is the watchpoint. What else is pending then is
        raised in the next `run`: the #DB of TF, an interrupt. The CPU's own accesses need not stop: to page tables, to
        descriptors, and by the delivery of an event. The rest is as for `set_breakpoints`.
        """

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """Give `sink` the records of forwarded exceptions: whole `Record`s, in order, valid during the call.

        All records older than an exit reach the sink before `run` returns with that exit.
        """

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Return EAX, EBX, ECX and EDX as the CPU itself answers. Only while the guest is stopped."""

    def kick(self) -> None:
        """Make `run` return with KICKED and the guest stopped. May be called from another thread."""

    def shutdown(self) -> None:
        """Let the next `run` end as hardware does after a triple fault: the machine is reset."""

    def close(self) -> None:
        """Release the machine. Safe to call twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
