"""INT n in virtual-8086 mode: which handler it reaches (APM 8.8, 8.10.1; volume 3, INT).

Without CR4.VME, or with its bit of the redirection bitmap set, the interrupt goes to protected mode, if IOPL is 3.
With the bit clear the program's own vector table at linear address 0 serves it. All other events go to protected mode.
"""

from typing import Final

from trapline.arch.bits import M64
from trapline.arch.descriptors import IO_MAP_BASE, REDIRECTION_SIZE
from trapline.arch.events import EventType
from trapline.arch.registers import CR4, RFLAGS

from . import checks, protected, real
from .access import IDT, TSS, Delivery
from .outcome import CheckFailed, Delivered

_CLEARED: Final = M64 ^ (RFLAGS.TF | RFLAGS.RF)


def deliver(d: Delivery) -> Delivered:
    """Deliver the event; raises CheckFailed and PageFault."""
    d.cpl = 3
    if d.event.type != EventType.SOFT:
        return protected.deliver(d)
    if d.save.cr4 & CR4.VME and not _bit(d):
        return _redirect(d)
    if d.rflags & RFLAGS.IOPL != RFLAGS.IOPL:
        raise CheckFailed(checks.IOPL, rflags=d.rflags)
    return protected.deliver(d)


def _bit(d: Delivery) -> int:
    """Return the interrupt's bit of the redirection bitmap."""
    tr, vector = d.save.tr, d.event.vector
    base, limit = tr.base, tr.limit
    if limit < IO_MAP_BASE + 1:
        raise CheckFailed(checks.MAP_LIMIT, limit=limit)
    at = d.read(base + IO_MAP_BASE, 2, TSS) - REDIRECTION_SIZE + vector // 8
    if not 0 <= at <= limit:
        raise CheckFailed(checks.MAP_LIMIT, limit=limit)
    return d.read(base + at, 1, TSS) >> vector % 8 & 1


def _redirect(d: Delivery) -> Delivered:
    """Serve the interrupt in virtual-8086 mode; with IOPL below 3 VIF takes the place of IF."""
    entry = d.read(4 * d.event.vector, 4, IDT)
    flags, rflags = d.flags, d.rflags & _CLEARED
    if flags & RFLAGS.IOPL == RFLAGS.IOPL:
        return real.enter(d, entry, flags, rflags & ~RFLAGS.IF)
    flags = flags & ~RFLAGS.IF | RFLAGS.IOPL | (RFLAGS.IF if flags & RFLAGS.VIF else 0)
    return real.enter(d, entry, flags, rflags & ~RFLAGS.VIF)
