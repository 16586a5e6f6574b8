"""A record as a line: JSON for programs, words for people."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trapline.arch.error_codes import describe_error_code
from trapline.arch.events import Event, EventType, decode
from trapline.arch.vectors import Vector, mnemonic
from trapline.machine.record import RecordFlags

if TYPE_CHECKING:
    import numpy as np

    from .columns import Records

_OUTCOMES = (
    (RecordFlags.SHUTDOWN, "shutdown"),
    (RecordFlags.COMBINED, "combined"),
    (RecordFlags.DISCARDED, "discarded"),
    (RecordFlags.FORWARDED, "forwarded"),
)


def json_lines(records: "Records", first: int) -> Iterator[str]:
    """Yield one JSON object a record; `first` is the sequence number of the first. 64-bit values are hex strings."""
    columns = (records[name].tolist() for name in _COLUMNS)
    for sequence, row in enumerate(zip(*columns, strict=True), first):
        (tsc, vcpu, vector, flags, error_code, address, cpl, cs, rip, ss, rsp, rflags, cr0, cr3, cr4, efer, dr6,
         exit_int_info, event) = row  # fmt: skip
        code = error_code if flags & RecordFlags.HAS_ERROR_CODE else "null"
        cr2 = f'"{address:#x}"' if flags & RecordFlags.HAS_ADDRESS else "null"
        yield (
            f'{{"seq":{sequence},"tsc":{tsc},"vcpu":{vcpu},"vector":{vector},"name":"{mnemonic(vector)}",'
            f'"error_code":{code},"address":{cr2},"cpl":{cpl},"cs":"{cs:#x}","rip":"{rip:#x}","ss":"{ss:#x}",'
            f'"rsp":"{rsp:#x}","rflags":"{rflags:#x}","cr0":"{cr0:#x}","cr3":"{cr3:#x}","cr4":"{cr4:#x}",'
            f'"efer":"{efer:#x}","dr6":"{dr6:#x}","vectoring":{_json_event(exit_int_info)},'
            f'"outcome":"{outcome(flags)}","injected":{_json_event(event)}}}\n'
        )


_COLUMNS = (
    "tsc", "vcpu", "vector", "flags", "error_code", "address", "cpl", "cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3",
    "cr4", "efer", "dr6", "exit_int_info", "event",
)  # fmt: skip


def outcome(flags: int) -> str:
    """Return in a word what became of an exception."""
    return next((word for flag, word in _OUTCOMES if flags & flag), "undelivered")


def text_line(record: "np.void") -> str:
    """Return one record in words: what, where, why, and what it was raised in the middle of."""
    vector, flags = int(record["vector"]), int(record["flags"])
    parts = [
        f"{mnemonic(vector):<4}",
        f"cpl {int(record['cpl'])}",
        f"{int(record['cs']):04x}:{int(record['rip']):016x}",
    ]
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
