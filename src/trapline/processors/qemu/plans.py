"""What the monitor does with each exception by itself: the plans in the mailbox."""

from collections.abc import Callable, Sequence
from typing import Final

from trapline.arch.events import ERROR_CODE_VALID, VALID, EventType
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import VECTORS, WITH_ERROR_CODE, Kind, Vector, bits
from trapline.machine.record import RecordFlags

from .layout import Policy, VectorPlan

_ALWAYS_ASKED: Final = 1 << Vector.BP | 1 << Vector.OF | 1 << Vector.DF
"""Vectors that the monitor always hands to Python, which corrects their RIP or their error code."""


def write_plans(
    plans: Sequence[VectorPlan], *, recorded: int, forwarded: int, arm: Callable[[int], int], sets_rf: bool
) -> None:
    """Write the plan of every vector.

    `recorded` and `forwarded` are masks of the vectors that the monitor re-injects, with and without a record; the
    others it hands to Python. `arm(vector)` returns what to intercept
    during a delivery. `sets_rf`: the
    flags of a fault need RF set.
    """
    for row in VECTORS:
        plan = plans[row.vector]
        has_code = WITH_ERROR_CODE >> row.vector & 1
        plan.event = VALID | EventType.EXCEPTION << 8 | has_code * ERROR_CODE_VALID | row.vector
        plan.arm = arm(row.vector)
        plan.rflags = RFLAGS.RF if sets_rf and row.kind is Kind.FAULT else 0
        plan.flags = RecordFlags.FORWARDED | has_code * RecordFlags.HAS_ERROR_CODE
        plan.flags |= RecordFlags.HAS_ADDRESS if row.vector == Vector.PF else 0
        plan.policy = Policy.ASK
    for vector in bits(forwarded & ~_ALWAYS_ASKED):
        plans[vector].policy = Policy.FORWARD
    for vector in bits(recorded & ~_ALWAYS_ASKED):
        plans[vector].policy = Policy.RECORD
