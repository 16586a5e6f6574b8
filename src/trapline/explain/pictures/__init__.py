"""What a delivery read, as values to draw: tables, the task-state segment, page walks and stacks, the faults marked."""

from .draw import draw
from .values import Entry, Field, Pictures, Stack, StackRow, State, Table, Walk, WalkEntry

__all__ = ["Entry", "Field", "Pictures", "Stack", "StackRow", "State", "Table", "Walk", "WalkEntry", "draw"]
