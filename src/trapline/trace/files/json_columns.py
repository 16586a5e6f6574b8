"""Records that were read from JSON lines, as columns."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa
from msgspec import UNSET

from trapline.machine.record import GENERAL
from trapline.trace.schema import mode_of
from trapline.trace.stored import RecordedEvent, StoredRecord

from .layout import types

_PLACE: Final = re.compile(r"(.*)\+0x([0-9a-f]{1,16})", re.DOTALL)
Reader = Callable[[StoredRecord], int | str | bool | None]


def batch_of(records: Sequence[StoredRecord], names: Sequence[str]) -> pa.RecordBatch:
    """Return some columns of records. Raises ValueError or OverflowError for a number with too many bits."""
    chosen = [name for name in names if name in _READERS] or ["seq"]
    return pa.record_batch([_array(name, records) for name in chosen], chosen)


def _array(name: str, records: Sequence[StoredRecord]) -> pa.Array:
    read, kind = _READERS[name], types()[name]
    values = [read(record) for record in records]
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _plain(name: str, record: StoredRecord) -> Any:  # noqa: ANN401  # a member's
    value = getattr(record, name)
    return None if value is UNSET else value


def _number(name: str, record: StoredRecord) -> int | None:
    value = getattr(record, name)
    return None if value is UNSET or value is None else int(value, 16)


def _of_event(name: str, member: str, record: StoredRecord) -> Any:  # noqa: ANN401  # a member's
    event = getattr(record, name)
    return getattr(event, member) if isinstance(event, RecordedEvent) else None


def _mode(record: StoredRecord) -> str | None:
    cr0, efer, rflags = (_number(name, record) for name in ("cr0", "efer", "rflags"))
    return None if cr0 is None or efer is None or rflags is None else mode_of(cr0, efer, rflags)


def _symbol(record: StoredRecord) -> str | None:
    symbol: str | None = _plain("symbol", record)
    match = symbol and _PLACE.fullmatch(symbol)
    return match[1] if match else symbol


def _offset(record: StoredRecord) -> int | None:
    match = _PLACE.fullmatch(_plain("symbol", record) or "")
    return int(match[2], 16) if match else None


_HEX: Final = (
    *("address", "cs", "cs_base", "rip", "ss", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6"),
    *GENERAL,
)
_EVENTS: Final = {"": "vector", "_type": "type", "_error_code": "error_code"}
_PLAIN: Final = ("seq", "vector", "error_code", "cpl", "tsc", "vcpu", "source", "synthesized", "outcome")
_READERS: Final[Mapping[str, Reader]] = {
    **{name: partial(_plain, name) for name in _PLAIN},
    **{name: partial(_number, name) for name in _HEX},
    **{
        event + end: partial(_of_event, event, member)
        for event in ("vectoring", "injected")
        for end, member in _EVENTS.items()
    },
    "mode": _mode,
    "symbol": _symbol,
    "symbol_offset": _offset,
}
