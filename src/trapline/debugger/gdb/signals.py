"""Signals: how gdb is told about vectors, and back. The numbers are gdb's own (include/gdb/signals.def)."""

from collections.abc import Iterable, Mapping
from typing import Final

from trapline.arch.vectors import Vector

INT: Final = 2
ILL: Final = 4
TRAP: Final = 5
ABRT: Final = 6
FPE: Final = 8
BUS: Final = 10
SEGV: Final = 11
STOP: Final = 17

NONE: Final = 0

OF_VECTORS: Final[Mapping[int, int]] = {
    Vector.DE: FPE,
    Vector.DB: TRAP,
    Vector.BP: TRAP,
    Vector.OF: TRAP,
    Vector.BR: SEGV,
    Vector.UD: ILL,
    Vector.NM: FPE,
    Vector.DF: BUS,
    Vector.TS: SEGV,
    Vector.NP: SEGV,
    Vector.SS: SEGV,
    Vector.GP: SEGV,
    Vector.PF: SEGV,
    Vector.MF: FPE,
    Vector.AC: BUS,
    Vector.XM: FPE,
    Vector.CP: SEGV,
}
"""The signal that a Unix kernel would send for an exception."""


def of_vector(vector: int) -> int:
    """Return the signal of a vector; of one without a signal of its own it is SIGTRAP."""
    return OF_VECTORS.get(vector, TRAP)


def vectors_of(signals: Iterable[int]) -> int:
    """Return a mask of the vectors with these signals."""
    wanted = frozenset(signals)
    return sum(1 << vector for vector, signal in OF_VECTORS.items() if signal in wanted)
