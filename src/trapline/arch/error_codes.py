"""Error codes as text (APM 8.4; 15.28 and 15.35 for #SX and #VC)."""

from typing import Final

from .descriptors import Selector
from .exits import exit_name
from .registers import DR6
from .vectors import Vector

PF_PRESENT: Final = 1 << 0
PF_WRITE: Final = 1 << 1
PF_USER: Final = 1 << 2
PF_RESERVED: Final = 1 << 3
PF_FETCH: Final = 1 << 4
PF_KEY: Final = 1 << 5
PF_SHADOW_STACK: Final = 1 << 6
PF_RMP: Final = 1 << 31

SELECTOR_EXTERNAL: Final = 1 << 0
SELECTOR_IDT: Final = 1 << 1
SELECTOR_LDT: Final = 1 << 2

_PF_EXTRA: Final = {
    PF_RESERVED: "reserved bit set",
    PF_KEY: "protection key",
    PF_SHADOW_STACK: "shadow stack",
    PF_RMP: "RMP check",
}
_CP_CAUSES: Final = {
    1: "near RET to another address than the shadow stack's",
    2: "far RET or IRET to another address than the shadow stack's",
    3: "no ENDBRANCH at the target",
    4: "RSTORSSP found no restore token",
    5: "SETSSBSY found no supervisor token",
}
_WITH_SELECTOR: Final = (Vector.TS, Vector.NP, Vector.SS, Vector.GP)


def describe_error_code(vector: int, code: int) -> str:
    """Describe the error code of an exception."""
    if vector == Vector.PF:
        return _page_fault(code)
    if vector in _WITH_SELECTOR:
        return _selector(code)
    if vector == Vector.CP:
        return _CP_CAUSES.get(code & 0x7FFF, f"unknown cause {code:#x}")
    if vector in (Vector.DF, Vector.AC):
        return "always zero" if code == 0 else f"{code:#x}, though it is always zero"
    if vector == Vector.VC:
        return exit_name(code)
    if vector == Vector.SX:
        return "INIT, redirected by VM_CR.R_INIT" if code == 1 else f"unknown cause {code:#x}"
    return f"{code:#x}, though the exception has no error code"


_DEBUG_CAUSES: Final = (
    (DR6.B0, "breakpoint 0"),
    (DR6.B1, "breakpoint 1"),
    (DR6.B2, "breakpoint 2"),
    (DR6.B3, "breakpoint 3"),
    (DR6.BD, "access to a debug register (DR7.GD)"),
    (DR6.BS, "single step"),
    (DR6.BT, "task switch"),
)


def describe_debug(dr6: int) -> str:
    """Describe what a #DB has left in DR6 (APM 13.1.1.3); handlers must clear it, so several causes may be set."""
    causes = [text for bit, text in _DEBUG_CAUSES if dr6 & bit]
    if not dr6 & DR6.BLD:
        causes.append("bus lock")
    return ", ".join(causes) or "no cause in DR6"


def _page_fault(code: int) -> str:
    access = "instruction fetch" if code & PF_FETCH else "write" if code & PF_WRITE else "read"
    found = [
        access,
        "protection violation" if code & PF_PRESENT else "not present",
        "user" if code & PF_USER else "supervisor",
    ]
    found += [text for bit, text in _PF_EXTRA.items() if code & bit]
    return ", ".join(found)


def _selector(code: int) -> str:
    external = ", external" if code & SELECTOR_EXTERNAL else ""
    if code & SELECTOR_IDT:
        return f"IDT entry {code >> 3 & 0x1FFF}{external}"
    if not code & Selector.REFERENCE:
        return f"no selector{external}"
    table = "LDT" if code & SELECTOR_LDT else "GDT"
    return f"selector {code & Selector.REFERENCE:#x}: {table} index {code >> 3 & 0x1FFF}{external}"
