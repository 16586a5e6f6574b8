"""Records as rows: error codes and registers in text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from trapline.arch.error_codes import describe_debug, describe_error_code
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector, mnemonic
from trapline.symbols import Symbol, place_in

Lookup: TypeAlias = Callable[[int], Symbol | None]
_GENERAL: Final = (
    *("rip", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    *(f"r{number}" for number in range(8, 16)),
)
_CONTROL: Final = {"rflags": RFLAGS, "cr0": CR0, "cr4": CR4, "efer": EFER}
_NOT_FLAGS: Final = ("ALWAYS_ONE",)


class Register(NamedTuple):
    """A register with its value, and what the value means."""

    name: str
    value: str
    meaning: str = ""


class Row(NamedTuple):
    """A record as text. Empty: the record does not have it."""

    seq: int
    vector: int
    name: str
    """As #PF."""
    cpl: str
    place: str
    """The function with the offset, or the address."""
    source: str
    detail: str
    """Error code and address in words, and what was under delivery."""
    outcome: str
    registers: tuple[Register, ...]


def bits(register: type, value: int) -> str:
    """Return the names of the bits that are set, in the order of their numbers; those without a name are left out."""
    named = {bit: name for name, bit in vars(register).items() if isinstance(bit, int) and name not in _NOT_FLAGS}
    return " ".join(name for bit, name in sorted(named.items()) if bit > 0 and bit & bit - 1 == 0 and value & bit)


def row(record: Mapping[str, object], lookup: Lookup | None = None) -> Row:
    """Return a record as text; its values are those of the columns of `trace.schema.COLUMNS`."""
    vector = _number(record, "vector") or 0
    cpl = _number(record, "cpl")
    place, source = place_of(record, lookup)
    outcome = record.get("outcome")
    return Row(
        _number(record, "seq") or 0,
        vector,
        mnemonic(vector),
        "" if cpl is None else str(cpl),
        place,
        source,
        "; ".join(_details(record, vector)),
        "" if outcome is None else _outcome(str(outcome), record),
        tuple(_registers(record)),
    )


def place_of(record: Mapping[str, object], lookup: Lookup | None) -> tuple[str, str]:
    """Return the function with the offset, or else the address, and the source line; empty where it is not known."""
    address = _number(record, "linear_rip")
    symbol = None if lookup is None or address is None else lookup(address)
    if symbol is not None:
        return symbol.place, symbol.source or ""
    name, offset = record.get("symbol"), _number(record, "symbol_offset")
    if name is not None:
        return place_in(str(name), offset), str(record.get("source") or "")
    rip = _number(record, "rip") if address is None else address
    return "" if rip is None else f"{rip:#x}", ""


def _number(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    return value if isinstance(value, int) else None


def _details(record: Mapping[str, object], vector: int) -> Iterator[str]:
    code, address = _number(record, "error_code"), _number(record, "address")
    if address is not None:
        yield f"address {address:#x}"
    if code is not None:
        yield f"error {code:#x}: {describe_error_code(vector, code)}"
    if vector == Vector.DB and (dr6 := _number(record, "dr6")) is not None:
        yield describe_debug(dr6)
    if (vectoring := _number(record, "vectoring")) is not None:
        yield f"while delivering {mnemonic(vectoring)}"
    elif record.get("synthesized") and vector == Vector.DF:
        yield "synthesized from the two above"


def _outcome(outcome: str, record: Mapping[str, object]) -> str:
    injected = _number(record, "injected")
    return f"injected {mnemonic(injected)}" if outcome == "injected" and injected is not None else outcome


def _registers(record: Mapping[str, object]) -> Iterator[Register]:
    for name, form, meaning in _SHOWN:
        if (value := _number(record, name)) is not None:
            yield Register(name, form.format(value), meaning(value))
    if record.get("mode") is not None:
        yield Register("mode", str(record["mode"]))


def _bits_of(register: type) -> Callable[[int], str]:
    return lambda value: bits(register, value)


def _nothing(_: int) -> str:
    return ""


_SHOWN: Final[Sequence[tuple[str, str, Callable[[int], str]]]] = (
    *((name, "{:#06x}", lambda value: f"RPL {value & 3}") for name in ("cs", "ss")),
    *((name, "{:#018x}", _nothing) for name in _GENERAL),
    *((name, "{:#x}", _bits_of(register)) for name, register in _CONTROL.items()),
    *((name, "{:#x}", _nothing) for name in ("cr3", "dr6")),
    *((name, "{:,}", _nothing) for name in ("tsc", "vcpu")),
)
"""The registers in their order: name, format, and what a value means."""
