"""A record as a line: JSON for programs, words for people."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from trapline.arch.error_codes import describe_error_code
from trapline.arch.events import Event, EventType, decode
from trapline.arch.vectors import Vector, mnemonic
from trapline.machine.record import RecordFlags
from trapline.symbols import Symbol

if TYPE_CHECKING:
    import numpy as np

    from .columns import Records

Lookup: TypeAlias = Callable[[int], Symbol | None]
"""Names a linear address."""

_OUTCOMES = (
    (RecordFlags.SHUTDOWN, "shutdown"),
    (RecordFlags.COMBINED, "combined"),
    (RecordFlags.DISCARDED, "discarded"),
    (RecordFlags.FORWARDED, "forwarded"),
)


def json_lines(records: "Records", first: int, lookup: Lookup | None = None) -> Iterator[str]:
    """Yield one JSON object a record; `first` is the sequence number of the first. 64-bit values are hex strings."""
    bases = records["cs_base"].tolist() if lookup is not None else ()
    columns = (records[name].tolist() for name in _COLUMNS)
    for sequence, row in enumerate(zip(*columns, strict=True), first):
        (tsc, vcpu, vector, flags, error_code, address, cpl, cs, rip, ss, rsp, rflags, cr0, cr3, cr4, efer, dr6,
         exit_int_info, event) = row  # fmt: skip
        code = error_code if flags & RecordFlags.HAS_ERROR_CODE else "null"
        cr2 = f'"{address:#x}"' if flags & RecordFlags.HAS_ADDRESS else "null"
        symbol = "" if lookup is None else json_symbol(lookup(linear(rip, bases[sequence - first])))
        yield (
            f'{{"seq":{sequence},"tsc":{tsc},"vcpu":{vcpu},"vector":{vector},"name":"{mnemonic(vector)}",'
            f'"error_code":{code},"address":{cr2},"cpl":{cpl},"cs":"{cs:#x}","rip":"{rip:#x}","ss":"{ss:#x}",'
            f'"rsp":"{rsp:#x}","rflags":"{rflags:#x}","cr0":"{cr0:#x}","cr3":"{cr3:#x}","cr4":"{cr4:#x}",'
            f'"efer":"{efer:#x}","dr6":"{dr6:#x}","vectoring":{_json_event(exit_int_info)},'
            f'"outcome":"{outcome(flags)}","injected":{_json_event(event)}{symbol}}}\n'
        )


_COLUMNS = (
    "tsc", "vcpu", "vector", "flags", "error_code", "address", "cpl", "cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3",
    "cr4", "efer", "dr6", "exit_int_info", "event",
)  # fmt: skip


def linear(rip: int, cs_base: int) -> int:
    """Return the linear address of an instruction; outside 64-bit code it has 32 bits (APM 4.5.3)."""
    return rip if rip >> 32 else cs_base + rip & 0xFFFF_FFFF


def json_symbol(symbol: Symbol | None) -> str:
    """Return the members of an object that name an address, with a comma before them."""
    if symbol is None:
        return ""
    source = "" if symbol.source is None else f',"source":{json.dumps(symbol.source)}'
    return f',"symbol":{json.dumps(symbol.place)}{source}'


def outcome(flags: int) -> str:
    """Return in a word what became of an exception."""
    return next((word for flag, word in _OUTCOMES if flags & flag), "undelivered")


def text_line(record: "np.void", lookup: Lookup | None = None) -> str:
    """Return one record in words: what, where, why, and what it was raised in the middle of."""
    vector, flags = int(record["vector"]), int(record["flags"])
    parts = [
        f"{mnemonic(vector):<4}",
        f"cpl {int(record['cpl'])}",
        f"{int(record['cs']):04x}:{int(record['rip']):016x}",
    ]
    symbol = None if lookup is None else lookup(linear(int(record["rip"]), int(record["cs_base"])))
    if symbol is not None:
        parts.append(str(symbol))
    if flags & RecordFlags.HAS_ADDRESS:
        parts.append(f"address {int(record['address']):#x}")
    vectoring = decode(int(record["exit_int_info"]))
    if flags & RecordFlags.HAS_ERROR_CODE:
        code = int(record["error_code"])
        parts.append(f"error {code:#x}: {_error_words(vector, code, vectoring)}")
    if vectoring is not None:
        parts.append(f"while delivering {vectoring}")
    if flags & RecordFlags.SYNTHESIZED and vectoring is None and vector == _DOUBLE_FAULT:
        parts.append("made of the two before")
    if flags & RecordFlags.COMBINED:
        parts.append("-> #DF")
    elif flags & RecordFlags.SHUTDOWN:
        parts.append("-> shutdown")
    elif flags & RecordFlags.DISCARDED:
        parts.append("-> discarded")
    return "  ".join(parts)


_DOUBLE_FAULT = 8
_IDT = 1 << 1
"""In a selector error code: it names a gate of the IDT."""


def _error_words(vector: int, code: int, vectoring: Event | None) -> str:
    # QEMU 7.2 counts the 16-byte gates of long mode in eights, so the number in the code is not to be trusted; the
    # event whose delivery met the gate is.
    if vectoring is not None and code & _IDT and Vector.TS <= vector <= Vector.GP:
        return f"the gate of {mnemonic(vectoring.vector)}"
    return describe_error_code(vector, code)


def _json_event(word: int) -> str:
    event = decode(word)
    return "null" if event is None else _json_of(event)


def _json_of(event: Event) -> str:
    kind = event.type
    name = EventType(kind).name.lower() if kind in EventType._value2member_map_ else str(kind)
    code = "null" if event.error_code is None else event.error_code
    return f'{{"vector":{event.vector},"type":"{name}","error_code":{code}}}'
