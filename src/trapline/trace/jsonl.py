"""Records as lines of JSON: what `run -o` writes (docs/trace-format.md)."""

import json
from collections.abc import Iterator
from typing import Final

from trapline.arch.events import decode
from trapline.arch.vectors import mnemonic
from trapline.machine.record import GENERAL, RecordFlags
from trapline.symbols import Symbol

from .exception_record import Lookup, linear_rip, outcome_of, unpack_records
from .schema import EVENT_TYPES

_GENERAL: Final = "".join(f',"{name}":"%#x"' for name in GENERAL)


def json_lines(
    data: bytes | memoryview, first: int, lookup: Lookup | None = None, *, registers: bool = True
) -> Iterator[str]:
    """Yield one JSON object for each of whole records; `first` is the sequence number of the first.

    64-bit values are hex strings. `registers`: the general registers are members too.
    """
    for sequence, row in enumerate(unpack_records(data), first):
        (tsc, vector, cpl, flags, error_code, exit_int_info, rip, rsp, rflags, cr3, address,
         cs, ss, vcpu, cs_base, cr0, cr4, efer, dr6, event, *general) = row  # fmt: skip
        code = error_code if flags & RecordFlags.HAS_ERROR_CODE else "null"
        cr2 = f'"{address:#x}"' if flags & RecordFlags.HAS_ADDRESS else "null"
        synthesized = "true" if flags & RecordFlags.SYNTHESIZED else "false"
        others = _GENERAL % tuple(general) if registers else ""
        symbol = "" if lookup is None else _json_symbol(lookup(linear_rip(rip, cs_base)))
        yield (
            f'{{"seq":{sequence},"tsc":{tsc},"vcpu":{vcpu},"vector":{vector},"name":"{mnemonic(vector)}",'
            f'"error_code":{code},"address":{cr2},"cpl":{cpl},"cs":"{cs:#x}","rip":"{rip:#x}","ss":"{ss:#x}",'
            f'"rsp":"{rsp:#x}","rflags":"{rflags:#x}","cr0":"{cr0:#x}","cr3":"{cr3:#x}","cr4":"{cr4:#x}",'
            f'"efer":"{efer:#x}","dr6":"{dr6:#x}","vectoring":{_json_event(exit_int_info)},'
            f'"outcome":"{outcome_of(flags).value}","injected":{_json_event(event)},'
            f'"synthesized":{synthesized},"cs_base":"{cs_base:#x}"{others}{symbol}}}\n'
        )


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
