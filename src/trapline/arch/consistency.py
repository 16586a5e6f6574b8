"""What VMRUN refuses with VMEXIT_INVALID (APM 15.5.1, 15.20), as a table of rules."""

from collections.abc import Callable
from typing import Final, NamedTuple

from .descriptors import Attribute
from .events import Event, EventType, decode
from .exits import ExitCode
from .registers import CR0, CR4, EFER
from .vectors import VECTORS, Kind, Vector
from .vmcb import Vmcb

_HIGH: Final = 0xFFFF_FFFF_0000_0000
_VMRUN: Final = 1 << ExitCode.VMRUN % 32
_CR4_KNOWN: Final = (
    CR4.VME | CR4.PVI | CR4.TSD | CR4.DE | CR4.PSE | CR4.PAE | CR4.MCE | CR4.PGE | CR4.PCE | CR4.OSFXSR
    | CR4.OSXMMEXCPT | CR4.UMIP | CR4.LA57 | CR4.FSGSBASE | CR4.PCIDE | CR4.OSXSAVE | CR4.SMEP | CR4.SMAP
    | CR4.PKE | CR4.CET
)  # fmt: skip
_EFER_KNOWN: Final = (
    EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE | EFER.SVME | EFER.LMSLE | EFER.FFXSR | EFER.TCE | EFER.MCOMMIT
    | EFER.INTWB | EFER.UAIE | EFER.AIBRSE
)  # fmt: skip
_CR3_LONG_RESERVED: Final = 0xFFF0_0000_0000_0000

_INJECTABLE: Final = sum(row.bit for row in VECTORS if row.kind is not Kind.RESERVED and row.vector != Vector.NMI)


class Rule(NamedTuple):
    """What a VMCB must not be."""

    text: str
    broken: Callable[[Vmcb], bool]


def _long_mode(vmcb: Vmcb) -> bool:
    return bool(vmcb.save.efer & EFER.LME and vmcb.save.cr0 & CR0.PG)


def is_illegal(event: Event, vmcb: Vmcb) -> bool:
    """Return whether an event cannot be injected, whatever else the VMCB holds (APM 15.20)."""
    if event.type == EventType.EXCEPTION:
        if not _INJECTABLE >> event.vector & 1:
            return True
        # An event that the guest could not have in its mode.
        return event.vector == Vector.BR and _long_mode(vmcb) and bool(vmcb.save.cs.attributes & Attribute.L)
    return event.type not in (EventType.INTR, EventType.NMI, EventType.SOFT)


def _illegal_event(vmcb: Vmcb) -> bool:
    event = decode(vmcb.control.event_inj)
    return event is not None and is_illegal(event, vmcb)


RULES: Final = (
    Rule("EFER.SVME is clear", lambda vmcb: not vmcb.save.efer & EFER.SVME),
    Rule("CR0.CD is clear and CR0.NW is set", lambda vmcb: vmcb.save.cr0 & (CR0.CD | CR0.NW) == CR0.NW),
    Rule("bits 63:32 of CR0 are not zero", lambda vmcb: bool(vmcb.save.cr0 & _HIGH)),
    Rule(
        "a reserved bit of CR3 is set",
        lambda vmcb: _long_mode(vmcb) and bool(vmcb.save.cr3 & _CR3_LONG_RESERVED),
    ),
    Rule("a reserved bit of CR4 is set", lambda vmcb: bool(vmcb.save.cr4 & ~_CR4_KNOWN)),
    Rule("bits 63:32 of DR6 are not zero", lambda vmcb: bool(vmcb.save.dr6 & _HIGH)),
    Rule("bits 63:32 of DR7 are not zero", lambda vmcb: bool(vmcb.save.dr7 & _HIGH)),
    Rule("a reserved bit of EFER is set", lambda vmcb: bool(vmcb.save.efer & ~_EFER_KNOWN)),
    Rule(
        "EFER.LME and CR0.PG are set and CR4.PAE is clear",
        lambda vmcb: _long_mode(vmcb) and not vmcb.save.cr4 & CR4.PAE,
    ),
    Rule(
        "EFER.LME and CR0.PG are set and CR0.PE is clear",
        lambda vmcb: _long_mode(vmcb) and not vmcb.save.cr0 & CR0.PE,
    ),
    Rule(
        "CS.L and CS.D are both set in long mode",
        lambda vmcb: (
            _long_mode(vmcb) and vmcb.save.cs.attributes & (Attribute.L | Attribute.DB) == Attribute.L | Attribute.DB
        ),
    ),
    Rule("the VMRUN intercept is clear", lambda vmcb: not vmcb.control.intercept_misc2 & _VMRUN),
    Rule("the ASID is zero", lambda vmcb: not vmcb.control.asid),
    Rule("EVENTINJ holds an event that cannot be injected", _illegal_event),
)


def why_invalid(vmcb: Vmcb) -> str | None:
    """Return the first rule that a VMCB breaks, as text; None: VMRUN takes it."""
    for rule in RULES:
        if rule.broken(vmcb):
            return rule.text
    return None
