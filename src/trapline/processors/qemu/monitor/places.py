"""How the monitor's code names what it works on: fields of the VMCB, the mailbox, a plan, a record.

Every offset comes from the layouts in `arch` and `layout`. RAX holds the VMCB's address
and RSP the mailbox's whenever the monitor runs: VMRUN takes the one and #VMEXIT restores both (APM 15.5, 15.6).
"""

from typing import Final

from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.asm import operands
from trapline.asm.operands import RAX, RBX, RCX, RDX, RSP, Mem, Reg
from trapline.machine.record import RECORD_SIZE, Record
from trapline.processors.qemu import layout
from trapline.processors.qemu.layout import Mailbox, Tables, VectorPlan

_PLAN: Final = size_of(VectorPlan)
PLAN_SHIFT: Final = _PLAN.bit_length() - 1
RECORD_SHIFT: Final = RECORD_SIZE.bit_length() - 1
assert 1 << PLAN_SHIFT == _PLAN, "plans are indexed by a shift"
assert 1 << RECORD_SHIFT == RECORD_SIZE, "records are indexed by a shift"

SAVED_FIRST: Final = (("rcx", RCX), ("rdx", RDX), ("rbx", RBX))
"""The registers that the fast path uses."""
SAVED_LATER: Final[tuple[tuple[str, Reg], ...]] = tuple(
    (name, getattr(operands, name.upper()))
    for name in ("rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
)
assert len(SAVED_FIRST + SAVED_LATER) + 2 == size_of(Gprs) // 8, "RAX and RSP are the VMCB's"


def vmcb(path: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the VMCB."""
    return Mem(RAX, offset_of(Vmcb, path), size=size)


def mailbox(path: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the mailbox."""
    return Mem(RSP, offset_of(Mailbox, path), size=size)


def plan(field: str, size: int | None = None) -> Mem:
    """Return the operand for a field of the vector's plan; RCX holds vector * size of a plan."""
    return Mem(RSP, offset_of(Mailbox, "plans") + offset_of(VectorPlan, field), index=RCX, size=size)


def place(at: int) -> Mem:
    """Return the operand for a place in the shared memory; LEA makes an address of it, wherever that memory is."""
    return Mem(RSP, at - layout.MAILBOX_AT)


def table(field: str) -> Mem:
    """Return the operand for a field of the descriptor tables."""
    return place(layout.TABLES_AT + offset_of(Tables, field))


def record(field: str) -> Mem:
    """Return the operand for a field of the record; RBX holds its address."""
    return Mem(RBX, offset_of(Record, field))
