"""Records of a trace one by one, as values."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trapline.arch.events import Event
from trapline.machine.record import GENERAL
from trapline.symbols import place_in
from trapline.trace.exception_record import Outcome
from trapline.trace.schema import EVENT_TYPES

from .groups import Batches

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS: Final = (
    *("seq", "vector", "error_code", "address", "cpl", "cs", "cs_base", "rip", "linear_rip", "ss", "rsp", "rflags"),
    *("cr0", "cr3", "cr4", "efer", "dr6", "vcpu"),
)
_EVENTS: Final = ("vectoring", "injected")
COLUMNS: Final = (
    *_NUMBERS,
    *(f"{event}{end}" for event in _EVENTS for end in ("", "_type", "_error_code")),
    *("outcome", "synthesized", "symbol", "symbol_offset", "source"),
)
"""The columns of a row, but for the general registers."""
_TYPES: Final = {text: number for number, text in enumerate(EVENT_TYPES)}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


class Row(NamedTuple):
    """A stored record, with the attributes of an ExceptionRecord; None: it is missing, or the record lacks it."""

    seq: int
    vector: int
    error_code: int | None
    address: int | None
    cpl: int | None
    cs: int | None
    cs_base: int | None
    rip: int | None
    linear_rip: int | None
    ss: int | None
    rsp: int | None
    rflags: int | None
    cr0: int | None
    cr3: int | None
    cr4: int | None
    efer: int | None
    dr6: int | None
    vcpu: int | None
    vectoring: Event | None
    injected: Event | None
    outcome: Outcome | None
    synthesized: bool
    symbol: str | None
    """Function and offset, with file and line where they are known."""
    registers: tuple[int, ...] | None
    """The general registers, in the order of `machine.record.GENERAL`."""


def rows(records: Batches, *, registers: bool = False, at_once: int = 1 << 16) -> Iterator[Row]:
    """Yield records one by one; `registers`: with the general registers. Raises UsageError for a damaged trace.

    So many are made `at_once`: few, where few of very many are wanted.
    """
    general = GENERAL if registers else ()
    for batch in _slices(records.batches((*COLUMNS, *general)), at_once):
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
        yield from map(
            Row._make,
            zip(
                *(columns[name] for name in _NUMBERS),
                *(_events(columns, event) for event in _EVENTS),
                (_OUTCOMES.get(text) for text in columns["outcome"]),
                (truth is True for truth in columns["synthesized"]),
                map(_place, columns["symbol"], columns["symbol_offset"], columns["source"]),
                _registers([columns[name] for name in general], batch),
                strict=True,
            ),
        )


def _slices(batches: "Iterable[pa.RecordBatch]", size: int) -> "Iterator[pa.RecordBatch]":
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


def _events(columns: dict[str, list[Any]], name: str) -> Iterator[Event | None]:
    kinds, codes = columns[f"{name}_type"], columns[f"{name}_error_code"]
    for vector, kind, code in zip(columns[name], kinds, codes, strict=True):
        yield None if vector is None or kind not in _TYPES else Event(vector, _TYPES[kind], code)


def _place(symbol: str | None, offset: int | None, source: str | None) -> str | None:
    if symbol is None:
        return None
    place = place_in(symbol, offset)
    return place if source is None else f"{place} ({source})"


def _registers(columns: Sequence[list[Any]], batch: "pa.RecordBatch") -> Iterator[tuple[int, ...] | None]:
    if not columns:
        yield from [None] * batch.num_rows
        return
    for values in zip(*columns, strict=True):
        yield None if None in values else values
