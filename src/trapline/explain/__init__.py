"""Why an exception could not be delivered: evidence taken from the stopped guest, and what the model proves from it."""

from .blackbox import BlackBox, chains
from .evidence import Evidence
from .story import Disassembler, Namer, Story, explain

__all__ = ["BlackBox", "Disassembler", "Evidence", "Namer", "Story", "chains", "explain"]
