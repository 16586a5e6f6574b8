"""The state of one virtual CPU."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from trapline.arch.events import Event, Shutdown
from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea
from trapline.machine.processor import Processor

from .exception import Decision, InterceptedException

_STATE_SIZE: Final = offset_of(SaveArea, "cr2") + size_of(SaveArea, "cr2")

Ask: TypeAlias = "Callable[[Vcpu, InterceptedException], Decision]"
"""Asks the observers about an exception."""
Recorder: TypeAlias = "Callable[[Vcpu, InterceptedException, Event | Shutdown | None], None]"
"""Called with each exception that the hypervisor handled and what the guest gets; None: it was discarded."""


class Policy(NamedTuple):
    """What a VM has its vCPUs do. It is replaced as a whole, while the guest is stopped."""

    mask: int
    """The forced exceptions."""
    decided: int
    """Those of them that observers are asked about."""
    watched: int
    """Those of them whose first ones the recorders are to see: the processor does not forward them by itself yet."""
    ask: Ask
    recorders: tuple[Recorder, ...]
    """Called in order, after the decision and before the next VMRUN."""
    reboots: bool
    """Whether a reset of the machine restarts the guest instead of ending the run."""
    enter: Callable[[SaveArea, Gprs], None] | None
    """Sets the state in which the guest starts after a reset, where no firmware does."""
    tolerated: "Callable[[Vcpu], None]"
    """Called at an instruction for which the manual has a #GP(0) that the processor does not raise."""


class Undelivered(NamedTuple):
    """The exception at which the guest is stopped, and what to do with it in the next run."""

    exit: InterceptedException
    decision: Decision
    raised: bytes
    """`Vcpu.state` at the #VMEXIT."""


class Vcpu:
    """A virtual CPU. Its registers are in the VMCB and the processor."""

    def __init__(self, processor: Processor, number: int, policy: Policy) -> None:
        self.processor = processor
        self.number = number
        self.policy = policy
        self.cpus: tuple[Vcpu, ...] = (self,)
        """The CPUs of its machine, the boot CPU first."""
        self.control, self.save = processor.vmcb.control, processor.vmcb.save
        """Views of the VMCB's two areas, made once."""
        self.state = memoryview(self.save).cast("B")[:_STATE_SIZE]
        """The bytes of the save area to CR2: all that a record has."""
        self.vectoring: Event | None = None
        """The event under delivery at the last exit (EXITINTINFO)."""
        self.undelivered: Undelivered | None = None
        self.injected_with_rf = 0
        """The event for which RFLAGS.RF was set, as the EVENTINJ word; 0: none."""
        self.vm_hsave_pa = 0
        """What the guest wrote to VM_HSAVE_PA."""
        self.resets = 0
        self.breakpoints: frozenset[int] = frozenset()
        """Linear addresses at which the guest stops."""
        self.inserted: frozenset[int] = frozenset()
        """The breakpoints that are set in the processor."""
        self.stopped_at: int | None = None
        """Where it stopped or was stepped to, as a linear address, since when it has not run; None: others stopped."""
        self.waits = False
        """It is not the boot CPU, and waits for a startup IPI."""
        self.startup: int | None = None
        """The vector of the startup IPI that started it; None: it is the boot CPU, or waits for one."""
        self.stepping = False
        """Whether the VMCB has the intercepts of a step instead of those of a run."""
