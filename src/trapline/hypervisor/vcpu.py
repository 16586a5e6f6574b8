"""The state of one virtual CPU."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from trapline.arch.events import Event, Shutdown
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea
from trapline.machine.processor import Processor

from .exception import Decision, InterceptedException

Ask: TypeAlias = "Callable[[Vcpu, InterceptedException], Decision]"
"""Shows an exception to the observers and returns what they decide."""
Recorder: TypeAlias = "Callable[[Vcpu, InterceptedException, Event | Shutdown | None], None]"
"""Sees each exception that the hypervisor handled, and what the guest gets; None: it was discarded."""


class Policy(NamedTuple):
    """What the VM wants of its vCPUs. It is replaced as a whole, while the guest is stopped."""

    mask: int
    """The forced exceptions."""
    decided: int
    """Those of them that observers decide on."""
    ask: Ask
    recorders: tuple[Recorder, ...]
    """Called in order, after the decision and before the next VMRUN."""
    reboots: bool
    """A reset of the machine starts the guest again instead of ending the run."""
    enter: Callable[[SaveArea, Gprs], None] | None
    """Changes the state after a reset to that in which the guest begins, where no firmware does."""


class Undelivered(NamedTuple):
    """An exception that an observer stopped at, and what is to become of it when the guest runs on."""

    exit: InterceptedException
    decision: Decision


class Vcpu:
    """One virtual CPU. Its registers are the VMCB's and the processor's: nothing is kept twice."""

    def __init__(self, processor: Processor, number: int, policy: Policy) -> None:
        self.processor = processor
        self.number = number
        self.policy = policy
        self.control, self.save = processor.vmcb.control, processor.vmcb.save
        """Views of the VMCB's two areas, made once."""
        self.vectoring: Event | None = None
        """What was being delivered at the last exit."""
        self.undelivered: Undelivered | None = None
        self.injected_with_rf = 0
        """The event for which RFLAGS.RF was set, as the EVENTINJ word; 0: none."""
        self.vm_hsave_pa = 0
        """The guest's idea of VM_HSAVE_PA."""
        self.resets = 0
        self.breakpoints: frozenset[int] = frozenset()
        """Where the guest is to stop: linear addresses."""
        self.inserted: frozenset[int] = frozenset()
        """The breakpoints that the processor has now."""
        self.stepping = False
        """The VMCB intercepts what a step needs, not what a run does."""
