"""Traces in files: JSON lines, Arrow and Parquet, written as a run goes and read as Arrow's record batches.

    with open_trace("run.parquet") as trace:
        for batch in trace.batches(("seq", "vector", "rip"), where="cpl == 3"):
            ...

What a file is its content says, not its name.
"""

from .open import open_trace
from .trace import Found, Trace

__all__ = ["Found", "Trace", "open_trace"]
