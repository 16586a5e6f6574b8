"""Records as lines of JSON: what `run -o` writes (docs/trace-format.md)."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trapline.arch.events import decode
from trapline.arch.vectors import mnemonic
from trapline.machine.record import RecordFlags
from trapline.symbols import Symbol

from .exception_record import Lookup, linear_rip, outcome_of
from .schema import EVENT_TYPES

if TYPE_CHECKING:
    from .columns import Records


def json_lines(records: "Records", first: int, lookup: Lookup | None = None) -> Iterator[str]:
    """Yield one JSON object a record; `first` is the sequence number of the first. 64-bit values are hex strings."""
    bases = records["cs_base"].tolist() if lookup is not None else ()
    columns = (records[name].tolist() for name in _COLUMNS)
    for sequence, row in enumerate(zip(*columns, strict=True), first):
        (tsc, vcpu, vector, flags, error_code, address, cpl, cs, rip, ss, rsp, rflags, cr0, cr3, cr4, efer, dr6,
         exit_int_info, event) = row  # fmt: skip
        code = error_code if flags & RecordFlags.HAS_ERROR_CODE else "null"
        cr2 = f'"{address:#x}"' if flags & RecordFlags.HAS_ADDRESS else "null"
        symbol = "" if lookup is None else _json_symbol(lookup(linear_rip(rip, bases[sequence - first])))
        yield (
            f'{{"seq":{sequence},"tsc":{tsc},"vcpu":{vcpu},"vector":{vector},"name":"{mnemonic(vector)}",'
            f'"error_code":{code},"address":{cr2},"cpl":{cpl},"cs":"{cs:#x}","rip":"{rip:#x}","ss":"{ss:#x}",'
            f'"rsp":"{rsp:#x}","rflags":"{rflags:#x}","cr0":"{cr0:#x}","cr3":"{cr3:#x}","cr4":"{cr4:#x}",'
            f'"efer":"{efer:#x}","dr6":"{dr6:#x}","vectoring":{_json_event(exit_int_info)},'
            f'"outcome":"{outcome_of(flags).value}","injected":{_json_event(event)}{symbol}}}\n'
        )


_COLUMNS = (
    "tsc", "vcpu", "vector", "flags", "error_code", "address", "cpl", "cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3",
    "cr4", "efer", "dr6", "exit_int_info", "event",
)  # fmt: skip


def _json_symbol(symbol: Symbol | None) -> str:
    """Return the members of an object that name an address, with a comma before them."""
    if symbol is None:
        return ""
    source = "" if symbol.source is None else f',"source":{json.dumps(symbol.source)}'
    return f',"symbol":{json.dumps(symbol.place)}{source}'


def _json_event(word: int) -> str:
    event = decode(word)
    if event is None:
        return "null"
    code = "null" if event.error_code is None else event.error_code
    return f'{{"vector":{event.vector},"type":"{EVENT_TYPES[event.type]}","error_code":{code}}}'
