"""What VMRUN refuses: a VMCB that breaks one rule, for each rule of `arch.consistency`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from trapline.arch.consistency import RULES
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector

from .check import Check, Exit, Turn
from .code import assemble
from .modes import LONG

_EFER: Final = LONG.efer | EFER.SVME
_HIGH: Final = 1 << 32

BREAKS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "EFER.SVME is clear": {"save.efer": LONG.efer},
        "CR0.CD is clear and CR0.NW is set": {"save.cr0": LONG.cr0 | CR0.NW},
        "bits 63:32 of CR0 are not zero": {"save.cr0": LONG.cr0 | _HIGH},
        "a reserved bit of CR3 is set": {"save.cr3": LONG.cr3 | 1 << 60},
        "a reserved bit of CR4 is set": {"save.cr4": LONG.cr4 | 1 << 31},
        "bits 63:32 of DR6 are not zero": {"save.dr6": _HIGH},
        "bits 63:32 of DR7 are not zero": {"save.dr7": _HIGH},
        "a reserved bit of EFER is set": {"save.efer": _EFER | 1 << 40},
        "EFER.LME and CR0.PG are set and CR4.PAE is clear": {"save.cr4": LONG.cr4 & ~CR4.PAE},
        "EFER.LME and CR0.PG are set and CR0.PE is clear": {"save.cr0": LONG.cr0 & ~CR0.PE},
        "CS.L and CS.D are both set in long mode": {"save.cs.attributes": 0xE9B},
        "the VMRUN intercept is clear": {"control.intercept_misc2": 0},
        "the ASID is zero": {"control.asid": 0},
        "EVENTINJ holds an event that cannot be injected": {
            "control.event_inj": encode(Event(Vector.NMI, EventType.EXCEPTION))
        },
    }
)
"""The fields that break a rule, by its text; all others are those of 64-bit mode."""


def _check(text: str) -> Check:
    return Check(
        f"VMRUN refuses: {text}",
        "a VMCB that breaks one rule ends in VMEXIT_INVALID",
        LONG,
        0,
        assemble(64, "cpuid").blob,
        (Turn(Exit(ExitCode.CPUID)), Turn(Exit(ExitCode.INVALID, keeps_state=False), sets=BREAKS[text])),
    )


def _illegal_event(name: str, event: Event) -> Check:
    check = _check("EVENTINJ holds an event that cannot be injected")
    broken = check.turns[1]._replace(sets={"control.event_inj": encode(event)})
    return check._replace(name=f"VMRUN refuses: {name} in EVENTINJ", turns=(check.turns[0], broken))


CHECKS: Final = (
    *(_check(rule.text) for rule in RULES),
    _illegal_event("a reserved type", Event(0x20, 1)),
    _illegal_event("vector 31", Event(31, EventType.EXCEPTION)),
    _illegal_event("#BR of 64-bit code", Event(Vector.BR, EventType.EXCEPTION)),
)
