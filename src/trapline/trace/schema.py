"""The columns of a recorded exception: their names, and how each is read from one exception and from many.

One table serves conditions, on one exception and on arrays, and export to Arrow. `of` reads an object with the
attributes of `ExceptionRecord`; a live exception has them too, but for the columns that are `decided`.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from trapline.arch.events import ERROR_CODE_VALID, VALID, Event, EventType
from trapline.arch.registers import CR0, EFER, RFLAGS
from trapline.machine.record import GENERAL, RecordFlags
from trapline.symbols import Symbol

from .column import Batch, Column, Columnar, Kind, Numbers, Texts, linear_addresses
from .exception_record import Outcome, outcome_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


EVENT_TYPES: Final = tuple(
    EventType(kind).name.lower() if kind in EventType._value2member_map_ else str(kind) for kind in range(8)
)
"""Names of the types of events, by bits 10:8 of the event word; a reserved one is its number (APM vol. 2, 15.20)."""
_HAS_CODE: Final = VALID | ERROR_CODE_VALID
MODES: Final = ("real", "protected", "v86", "long")
_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)


def mode_of(cr0: int, efer: int, rflags: int) -> str:
    """Return the operating mode (APM vol. 2, 1.2.2), one of `MODES`.

    A record lacks CS.L: `long` is 64-bit code and compatibility mode alike.
    """
    if not cr0 & CR0.PE:
        return "real"
    if efer & EFER.LMA:
        return "long"
    return "v86" if rflags & RFLAGS.VM else "protected"


def modes_of(cr0: "NDArray[Any]", efer: "NDArray[Any]", rflags: "NDArray[Any]") -> Texts:
    """Return the operating modes of many."""
    import numpy as np

    chosen = [cr0 & CR0.PE == 0, efer & EFER.LMA != 0, rflags & RFLAGS.VM != 0]
    codes = [MODES.index(name) for name in ("real", "long", "v86")]
    return Texts(np.select(chosen, codes, MODES.index("protected")), MODES)


def _outcomes(batch: Batch) -> Texts:
    import numpy as np

    flags, codes = np.unique(batch.records["flags"], return_inverse=True)
    return Texts(codes, [outcome_of(int(value)).value for value in flags])


def _symbol_texts(batch: Batch, text: Callable[[Symbol | None], str | None]) -> Texts:
    import numpy as np

    places, symbols = batch.symbols
    codes: dict[str | None, int] = {}
    found = [codes.setdefault(text(symbol), len(codes)) for symbol in symbols]
    return Texts(np.array(found, np.intp)[places], tuple(codes))


def _name(symbol: Symbol | None) -> str | None:
    return None if symbol is None else symbol.name


def _source(symbol: Symbol | None) -> str | None:
    return None if symbol is None else symbol.source


def _offset(symbol: Symbol | None) -> int | None:
    return None if symbol is None else symbol.offset


def _offsets(batch: Batch) -> Numbers:
    import numpy as np

    places, symbols = batch.symbols
    return Numbers(np.array([_offset(symbol) or 0 for symbol in symbols], np.uint64)[places], _named(batch))


def _named(batch: Batch) -> "NDArray[np.bool_]":
    import numpy as np

    places, symbols = batch.symbols
    return np.take(np.array([symbol is not None for symbol in symbols], np.bool_), places)


def _any_bit(batch: Batch, field: str, bits: int) -> "NDArray[np.bool_]":
    found: NDArray[np.bool_] = batch.records[field] & bits != 0
    return found


def _field(name: str, description: str, kind: Kind = Kind.NUMBER) -> Column:
    """Return a column that is a field of the record and always has a value."""
    return Column(name, kind, description, attrgetter(name), lambda batch: Numbers(batch.records[name]))


def _register(name: str) -> Column:
    """Return the column of a general register."""
    value = attrgetter(f"registers.{name}")
    return Column(name, Kind.NUMBER, "general register", value, lambda batch: Numbers(batch.records[name]))


def _optional(name: str, flag: int, description: str, presence: str) -> tuple[Column, Column]:
    """Return a column that has a value where a flag is set, and the column of that flag."""

    def present(batch: Batch) -> "NDArray[np.bool_]":
        return _any_bit(batch, "flags", flag)

    value = attrgetter(name)
    return (
        Column(name, Kind.NUMBER, description, value, lambda batch: Numbers(batch.records[name], present(batch))),
        Column(f"has_{name}", Kind.TRUTH, presence, lambda exception: value(exception) is not None, present),
    )


def _event(name: str, field: str, what: str, *, decided: bool = False) -> tuple[Column, ...]:
    """Return the columns of an event word: the vector, the type, the error code, whether there is one."""
    event: Callable[[Any], Event | None] = attrgetter(name)

    def vector(exception: object) -> int | None:
        found = event(exception)
        return None if found is None else found.vector

    def kind(exception: object) -> str | None:
        found = event(exception)
        return None if found is None else EVENT_TYPES[found.type]

    def error_code(exception: object) -> int | None:
        found = event(exception)
        return None if found is None else found.error_code

    def present(batch: Batch) -> "NDArray[np.bool_]":
        return _any_bit(batch, field, VALID)

    def error_codes(batch: Batch) -> Numbers:
        words = batch.records[field]
        return Numbers((words >> 32).astype("u4"), words & _HAS_CODE == _HAS_CODE)

    def vectors(batch: Batch) -> Numbers:
        return Numbers((batch.records[field] & 0xFF).astype("u1"), present(batch))

    def kinds(batch: Batch) -> Texts:
        import numpy as np

        return Texts(np.where(present(batch), batch.records[field] >> 8 & 7, 8), (*EVENT_TYPES, None))

    return (
        Column(name, Kind.VECTOR, f"vector of the event {what}", vector, vectors, decided=decided),
        Column(f"{name}_type", Kind.TEXT, "its type: intr, nmi, exception, soft", kind, kinds, EVENT_TYPES, decided),
        Column(f"{name}_error_code", Kind.NUMBER, "its error code", error_code, error_codes, decided=decided),
        Column(
            f"has_{name}",
            Kind.TRUTH,
            f"whether there is an event {what}",
            lambda exception: event(exception) is not None,
            present,
            decided=decided,
        ),
    )


_ALL: Final = (
    Column("seq", Kind.NUMBER, "number of the record, from 0", attrgetter("seq"), lambda batch: Numbers(batch.numbers)),
    _field("vector", "which exception; compare it with pf, gp, ...", Kind.VECTOR),
    *_optional("error_code", RecordFlags.HAS_ERROR_CODE, "the error code that it pushes", "whether it pushes one"),
    *_optional("address", RecordFlags.HAS_ADDRESS, "the faulting linear address of a #PF", "whether there is one"),
    _field("cpl", "privilege level: 0 kernel, 3 user"),
    _field("cs", "selector of the code segment"),
    _field("cs_base", "base of the code segment"),
    _field("rip", "where it was raised; a fault's, #BP's and #OF's is that of the instruction"),
    Column("linear_rip", Kind.NUMBER, "RIP with the base of CS", attrgetter("linear_rip"), linear_addresses),
    _field("ss", "selector of the stack segment"),
    _field("rsp", "stack pointer"),
    _field("rflags", "flags register"),
    _field("cr0", "control register"),
    _field("cr3", "physical address of the page tables, with PCID or flags"),
    _field("cr4", "control register"),
    _field("efer", "extended features, with SVME"),
    _field("dr6", "debug status"),
    _field("tsc", "time stamp counter"),
    _field("vcpu", "number of the virtual CPU"),
    Column(
        "mode",
        Kind.TEXT,
        "operating mode; long is compatibility mode too",
        lambda e: mode_of(e.cr0, e.efer, e.rflags),
        lambda batch: modes_of(*(batch.records[name] for name in ("cr0", "efer", "rflags"))),
        MODES,
    ),
    Column(
        "symbol",
        Kind.TEXT,
        "function of linear_rip",
        lambda e: _name(e.symbol),
        lambda batch: _symbol_texts(batch, _name),
    ),
    Column("symbol_offset", Kind.NUMBER, "bytes from its start", lambda e: _offset(e.symbol), _offsets),
    Column(
        "source",
        Kind.TEXT,
        "file and line of linear_rip",
        lambda e: _source(e.symbol),
        lambda batch: _symbol_texts(batch, _source),
    ),
    Column("has_symbol", Kind.TRUTH, "whether linear_rip has a name", lambda e: e.symbol is not None, _named),
    *_event("vectoring", "exit_int_info", "under delivery"),
    Column(
        "synthesized",
        Kind.TRUTH,
        "raised by the hypervisor: a #DF of two exceptions",
        attrgetter("synthesized"),
        lambda batch: _any_bit(batch, "flags", RecordFlags.SYNTHESIZED),
    ),
    Column("outcome", Kind.TEXT, "what became of it", lambda e: e.outcome.value, _outcomes, _OUTCOMES, decided=True),
    *_event("injected", "event", "injected for it", decided=True),
    *(_register(name) for name in GENERAL),
)
COLUMNS: Final = {column.name: column for column in _ALL}
"""All columns by name."""


def numbers_of(columns: Columnar, name: str) -> Numbers:
    """Return a column of numbers."""
    found: Numbers = columns.over(COLUMNS[name])
    return found
