"""Events whose gate is a task gate, and tasks that cannot start (APM vol. 2, 12.5)."""

from collections.abc import Sequence
from typing import Final

from trapline.arch.descriptors import GateType, gate_type
from trapline.arch.events import Event
from trapline.arch.registers import CR0, CR3
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea

from .attempt import Attempt
from .evidence import Evidence
from .explanation import Delivery, Explanation
from .memory import PartialMemory

_PUSHED: Final = 4
"""Bytes of an error code."""


def task_gate(save: SaveArea, memory: PartialMemory, event: Event, physical_bits: int) -> int | None:
    """Return the selector of the TSS that an event's task gate names; None: its gate is of another kind."""
    attempt = Attempt(save, memory, event, physical_bits)
    if attempt.real or attempt.long or gate_type(attempt.gate) != GateType.TASK:
        return None
    return attempt.selector


def switched(chain: Sequence[Evidence]) -> int | None:
    """Return which piece of a chain is the first in the task that a task gate started; None: none is."""
    first = chain[0]
    for number, piece in enumerate(chain):
        if piece.save.tr.selector != first.save.tr.selector:
            return number
    if first.vectoring is None:
        return None
    task = task_gate(first.save, first.memory, first.vectoring, first.physical_bits)
    return 0 if task is not None and task == first.save.tr.selector else None


def not_started(before: Explanation, piece: Evidence) -> Explanation:
    """Add to the explanation of what led to a task switch that the new task raised an exception before it began."""
    save, event = piece.save, piece.event
    assert piece.vectoring is not None, "an event started the task"
    raised = "it" if event is None else f"{event}"
    text = (
        f"the task of TSS {save.tr.selector:#x}, which the task gate of {piece.vectoring._replace(error_code=None)} "
        f"starts, cannot begin: {raised} is raised with the registers of that TSS, CR3 {save.cr3:#x}, "
        f"CS:EIP {save.cs.selector:#x}:{save.rip:#x}, SS:ESP {save.ss.selector:#x}:{save.rsp:#x}"
    )
    if save.cr0 & CR0.PG and not save.cr3 & ~CR3.PCID:
        text += "; with paging on a TSS must have a CR3"
    elif event is not None and event.vector == Vector.PF and piece.address == save.rsp - _PUSHED & 0xFFFF_FFFF:
        text += "; the error code cannot be pushed to that stack"
    delivery = Delivery(piece.vectoring, "the new task cannot begin", "12.5", event, None, None)
    return before._replace(
        deliveries=(*before.deliveries, delivery), ending=piece.becomes, causes=(*before.causes, f"{text}.")
    )
