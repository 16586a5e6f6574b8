"""An intercepted exception, and what an observer may decide about it."""

from enum import Enum
from typing import NamedTuple, TypeAlias

from trapline.arch.events import Event, EventType
from trapline.arch.vectors import FORCEABLE, VECTORS, WITH_ERROR_CODE, Vector
from trapline.errors import UsageError


class InterceptedException(NamedTuple):
    """An intercepted exception, as the hardware reported it."""

    event: Event
    vectoring: Event | None
    """What was being delivered when it was raised."""
    address: int | None
    """The faulting linear address of a #PF, which CR2 does not hold yet."""
    synthesized: bool = False
    """Raised by the hypervisor, not by the guest's instruction."""
    vectoring_address: int | None = None
    """The faulting linear address of `vectoring` if that is a #PF: CR2 at the exit."""


class Verdict(Enum):
    """What is to become of an exception."""

    FORWARD = "forward"
    """Give it to the guest as it was: the default."""
    DISCARD = "discard"
    """The guest never sees it, and goes on at the RIP in the VMCB."""
    STOP = "stop"
    """Stop the guest with the exception still undelivered; running on delivers it."""


class Injection(NamedTuple):
    """Another exception in the place of the one that was intercepted."""

    event: Event
    address: int | None
    """What a #PF writes to CR2; None: CR2 stays."""


Decision: TypeAlias = Verdict | Injection
"""What a callback or an observer answers: a verdict, or what `inject` returns."""


def injection(vector: int, error_code: int | None = None, address: int | None = None) -> Injection:
    """Return the decision to deliver another exception instead (APM vol. 2, 15.20).

    Without `error_code` a vector that pushes one pushes 0. Raises UsageError for what no CPU delivers: a vector that
    may not be forced, an error code where none is pushed or that of a #DF other than 0, an address without a #PF.
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
        raise UsageError(f"#PF cannot be injected with the address {address:#x}: it has 64 bits")
    return Injection(Event(vector, EventType.EXCEPTION, error_code), address)
