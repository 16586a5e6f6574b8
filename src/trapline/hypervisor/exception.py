"""An intercepted exception, and the decisions about it."""

from enum import Enum
from typing import NamedTuple, TypeAlias

from trapline.arch.events import Event, EventType
from trapline.arch.vectors import FORCEABLE, VECTORS, WITH_ERROR_CODE, Vector
from trapline.errors import UsageError


class InterceptedException(NamedTuple):
    """An intercepted exception, as the #VMEXIT reported it."""

    event: Event
    vectoring: Event | None
    """The event that was being delivered when it was raised (EXITINTINFO)."""
    address: int | None
    """The faulting linear address of a #PF, which CR2 does not hold yet."""
    synthesized: bool = False
    """Whether the hypervisor raised it: for an emulated instruction, or as the #DF that two exceptions combine to."""
    vectoring_address: int | None = None
    """The faulting linear address of `vectoring`, if that is a #PF: CR2 at the exit."""


class Verdict(Enum):
    """What to do with an exception."""

    FORWARD = "forward"
    """Deliver it unchanged: the default."""
    DISCARD = "discard"
    """Do not deliver it: the guest continues at the RIP in the VMCB."""
    STOP = "stop"
    """Stop the guest before the exception is delivered; the next run delivers it."""


class Injection(NamedTuple):
    """The decision to deliver another exception instead."""

    event: Event
    address: int | None
    """What a #PF writes to CR2; None: CR2 is unchanged."""


Decision: TypeAlias = Verdict | Injection
"""What a callback or an observer returns: a verdict, or the result of `inject`."""


def injection(vector: int, error_code: int | None = None, address: int | None = None) -> Injection:
    """Return the decision to deliver another exception instead (APM vol. 2, 15.20).

    The default of `error_code` is 0 for a vector that pushes one. Raises UsageError for what a CPU cannot deliver: a
    vector that may not be forced, an error code for a vector without one, one other than 0 for #DF, an address for a
    vector other than #PF.
    """
    if not 0 <= vector < len(VECTORS) or not FORCEABLE >> vector & 1:
        why = VECTORS[vector].refused if 0 <= vector < len(VECTORS) else "There are 32 exception vectors."
        raise UsageError(f"vector {vector} cannot be injected: {why}")
    name = VECTORS[vector].mnemonic
    if not WITH_ERROR_CODE >> vector & 1:
        if error_code is not None:
            raise UsageError(f"{name} cannot be injected with an error code: it pushes none")
    else:
        error_code = error_code or 0
        if not 0 <= error_code <= 0xFFFF_FFFF or (vector == Vector.DF and error_code):
            raise UsageError(f"{name} cannot be injected with the error code {error_code:#x}")
    if address is not None and vector != Vector.PF:
        raise UsageError(f"{name} cannot be injected with an address: only #PF has one")
    if address is not None and not 0 <= address < 1 << 64:
        raise UsageError(f"#PF cannot be injected with the address {address:#x}: an address has 64 bits")
    return Injection(Event(vector, EventType.EXCEPTION, error_code), address)
