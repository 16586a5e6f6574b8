"""What is different between two traces: what is new, gone, moved or changed, how counts changed, where they part."""

from .align import CutOff
from .compare import Change, Count, Difference, Parting, States, compare
from .edits import Kind
from .keys import By

__all__ = ["By", "Change", "Count", "CutOff", "Difference", "Kind", "Parting", "States", "compare"]
