"""The checks that a delivery must pass, as rows of a table, and their order in each mode.

The order is that of the descriptions in the manual: APM 8.6 to 8.10, and INT n in volume 3. Page faults are found
wherever memory is touched; so each place has its row.
"""

from enum import Enum
from typing import Final, NamedTuple

from trapline.arch.vectors import Vector


class Code(Enum):
    """What the error code of the exception that follows consists of (APM 8.4)."""

    IDT = "the gate: vector * 8 + IDT, and EXT"
    SELECTOR = "the selector, and EXT"
    ZERO = "0, and EXT"
    PAGE_FAULT = "the access, as of a page fault"
    PLAIN_ZERO = "0"


class Check(NamedTuple):
    """One row: what is checked and what a failure raises."""

    name: str
    text: str
    """What is wrong, as a clause."""
    section: str
    vector: int | None
    """Of the exception that follows; None: the model goes no further."""
    code: Code = Code.ZERO


IDT_LIMIT: Final = Check("IDT limit", "the IDT ends before the gate", "8.9.2", Vector.GP, Code.IDT)
IDT_ADDRESS: Final = Check("IDT address", "the gate's address is not canonical", "5.3.1", Vector.GP)
IDT_PAGE: Final = Check("IDT page", "the gate cannot be read", "5.6", Vector.PF, Code.PAGE_FAULT)
GATE_TYPE: Final = Check("gate type", "the descriptor is not an interrupt or trap gate", "8.7.1", Vector.GP, Code.IDT)
GATE_DPL: Final = Check("gate DPL", "the gate's DPL is below the CPL", "8.7.4", Vector.GP, Code.IDT)
GATE_PRESENT: Final = Check("gate present", "the gate is not present", "8.2.12", Vector.NP, Code.IDT)
TASK_TABLE: Final = Check("task table", "the TSS is not in the GDT", "12.2.2", Vector.GP, Code.SELECTOR)
TASK_LIMIT: Final = Check("task table limit", "the table ends before the TSS", "12.2.2", Vector.GP, Code.SELECTOR)
TASK_TYPE: Final = Check("task type", "the segment is not an available TSS", "12.2.2", Vector.GP, Code.SELECTOR)
TASK_PRESENT: Final = Check("task present", "the TSS is not present", "8.2.12", Vector.NP, Code.SELECTOR)
TASK_GATE: Final = Check("task gate", "the task gate switches to another task", "12.5", None)
TASK_SIZE: Final = Check("task size", "the TSS ends before its last register", "12.2.4", Vector.TS, Code.SELECTOR)
TASK_LDT: Final = Check("task LDT", "the task's LDT is not one that is present", "12.5", Vector.TS, Code.SELECTOR)
TASK_SEGMENT: Final = Check(
    "task segment", "a segment of the new task cannot be loaded", "8.2.11", Vector.TS, Code.SELECTOR
)
TASK_SEGMENT_PRESENT: Final = Check(
    "task segment present", "a segment of the new task is not present", "8.2.12", Vector.NP, Code.SELECTOR
)

CODE_NULL: Final = Check("code selector", "the gate's selector is null", "8.7.1", Vector.GP)
CODE_LIMIT: Final = Check("code table limit", "the table ends before the descriptor", "4.6.2", Vector.GP, Code.SELECTOR)
TABLE_ADDRESS: Final = Check("descriptor address", "the descriptor's address is not canonical", "5.3.1", Vector.GP)
TABLE_PAGE: Final = Check("descriptor page", "the descriptor cannot be read", "5.6", Vector.PF, Code.PAGE_FAULT)
CODE_TYPE: Final = Check("code type", "the segment is not a code segment", "8.7.1", Vector.GP, Code.SELECTOR)
CODE_DPL: Final = Check("code DPL", "the handler is less privileged", "8.7.4", Vector.GP, Code.SELECTOR)
CODE_PRESENT: Final = Check("code present", "the code segment is not present", "8.2.12", Vector.NP, Code.SELECTOR)
CODE_LONG: Final = Check("code L and D", "the segment is not 64-bit code", "8.9.1", Vector.GP, Code.SELECTOR)
CODE_RING_0: Final = Check("code of ring 0", "the handler is not in ring 0", "8.8.1", Vector.GP, Code.SELECTOR)

TSS_LIMIT: Final = Check("TSS limit", "the TSS ends before the stack pointer", "8.7.3", Vector.TS, Code.SELECTOR)
TSS_ADDRESS: Final = Check("TSS address", "the address in the TSS is not canonical", "5.3.1", Vector.GP)
TSS_PAGE: Final = Check("TSS page", "the stack pointer cannot be read", "5.6", Vector.PF, Code.PAGE_FAULT)
STACK_POINTER: Final = Check("stack pointer", "the TSS's stack pointer is not canonical", "8.9.3", Vector.SS)
STACK_NULL: Final = Check("stack selector", "the TSS's stack selector is null", "8.2.11", Vector.TS)
STACK_RPL: Final = Check("stack RPL", "the selector's RPL is not the new CPL", "8.2.11", Vector.TS, Code.SELECTOR)
STACK_LIMIT: Final = Check(
    "stack table limit", "the table ends before the stack's descriptor", "8.2.11", Vector.TS, Code.SELECTOR
)
STACK_DPL: Final = Check("stack DPL", "the stack's DPL is not the new CPL", "8.2.11", Vector.TS, Code.SELECTOR)
STACK_TYPE: Final = Check("stack type", "the segment is not writable data", "8.2.11", Vector.TS, Code.SELECTOR)
STACK_PRESENT: Final = Check("stack present", "the stack segment is not present", "8.2.13", Vector.SS, Code.SELECTOR)

PUSH_ADDRESS: Final = Check("stack address", "the stack's address is not canonical", "8.2.13", Vector.SS)
PUSH_LIMIT: Final = Check("stack limit", "the push is outside the limits of the stack segment", "8.2.13", Vector.SS)
PUSH_PAGE: Final = Check("stack page", "the stack cannot be written", "5.6", Vector.PF, Code.PAGE_FAULT)
HANDLER_LIMIT: Final = Check("handler in segment", "the handler is beyond the code limit", "4.12.2", Vector.GP)
HANDLER_ADDRESS: Final = Check("handler address", "the handler's address is not canonical", "8.9.1", Vector.GP)

IOPL: Final = Check("IOPL", "INT n needs IOPL 3 in virtual-8086 mode", "8.8", Vector.GP, Code.PLAIN_ZERO)
MAP_LIMIT: Final = Check(
    "redirection map", "the TSS ends before the redirection map", "8.10.1", Vector.GP, Code.PLAIN_ZERO
)

REAL: Final = (IDT_LIMIT, PUSH_LIMIT, HANDLER_LIMIT)
"""APM 8.6."""

_GATE: Final = (IDT_LIMIT, IDT_PAGE, GATE_TYPE, GATE_DPL, GATE_PRESENT)
_CODE: Final = (CODE_NULL, CODE_LIMIT, TABLE_PAGE, CODE_TYPE, CODE_DPL, CODE_PRESENT)
_STACK: Final = (
    *(TSS_LIMIT, TSS_PAGE, STACK_NULL, STACK_RPL, STACK_LIMIT),
    *(TABLE_PAGE, STACK_DPL, STACK_TYPE, STACK_PRESENT),
)

_TASK: Final = (TASK_TABLE, TASK_LIMIT, TASK_TYPE, TASK_PRESENT, TASK_GATE)

PROTECTED: Final = (*_GATE, *_TASK, *_CODE, *_STACK, PUSH_LIMIT, PUSH_PAGE, HANDLER_LIMIT)
"""APM 8.7. The rows about the TSS and the stack segment hold when CPL changes."""

VIRTUAL_8086: Final = (
    *(IOPL, *_GATE, *_TASK, *_CODE, CODE_RING_0, *_STACK),
    *(PUSH_LIMIT, PUSH_PAGE, HANDLER_LIMIT),
)
"""APM 8.8.1."""

REDIRECTED: Final = (MAP_LIMIT, TSS_PAGE, IOPL, IDT_PAGE, PUSH_LIMIT, PUSH_PAGE, HANDLER_LIMIT)
"""APM 8.8.2 and 8.10.1: INT n with CR4.VME."""

LONG: Final = (
    *(IDT_LIMIT, IDT_ADDRESS, IDT_PAGE, GATE_TYPE, GATE_DPL, GATE_PRESENT),
    *(CODE_NULL, CODE_LIMIT, TABLE_ADDRESS, TABLE_PAGE, CODE_TYPE, CODE_DPL, CODE_PRESENT, CODE_LONG),
    *(TSS_LIMIT, TSS_ADDRESS, TSS_PAGE, STACK_POINTER, PUSH_ADDRESS, PUSH_PAGE, HANDLER_ADDRESS),
)
"""APM 8.9. The rows about the TSS hold when CPL changes or the gate names an IST stack."""
