"""What corrects the departures of a CPU from the manual, between the hypervisor and the monitor."""

from typing import Protocol

from .nmis import Nmis


class Quirks(Protocol):
    """Carries state from an entry to the exit that follows. `quirks_tcg` and `quirks_kvm` have one each."""

    nmis: Nmis

    @property
    def wants_interrupts(self) -> bool:
        """Whether an exit for an interrupt is for the hypervisor, or for a wait."""

    def reset(self) -> None:
        """Forget what the guest did: the machine was reset."""

    def note_intercepts(self) -> None:
        """Read what the hypervisor wants from the VMCB; `write_intercepts` has to follow."""

    def write_intercepts(self, *, stopping: bool, watching: bool) -> int:
        """Add what the CPU needs to what the hypervisor wants; returns the exceptions that it does not want.

        `stopping`: exits are forced by INT3 (`stops`). `watching`: the CPU is to deliver no event by itself
        (`deliveries`).
        """

    def arm_for(self, vector: int) -> int:
        """Return what to intercept while an exception is delivered, besides the standing intercepts."""

    def before_entry(self) -> None:
        """Turn what the hypervisor asks for into what the CPU does right."""

    def entering(self) -> None:
        """Note what the VMRUN that follows injects."""

    def drop_exit(self) -> None:
        """Forget an exit that was forced: nothing happened that the hypervisor asked for."""

    def is_still_wanted(self) -> bool:
        """Say whether the hypervisor wants an exit that was kept since its intercepts changed; False: resume."""

    def after_exit(self) -> bool:
        """Turn the exit into the one that the manual specifies; False: the hypervisor did not ask for it, resume."""
