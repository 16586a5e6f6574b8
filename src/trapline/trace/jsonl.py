"""Records as lines of JSON: what `run -o` writes (docs/trace-format.md)."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from trapline.arch.events import decode
from trapline.arch.vectors import mnemonic
from trapline.machine.record import GENERAL, RecordFlags
from trapline.symbols import Symbol

from .exception_record import Lookup, linear_rip, outcome_of, unpack_records
from .schema import EVENT_TYPES

_GENERAL: Final = "".join(f',"{name}":"%#x"' for name in GENERAL)
_KEPT: Final = 1 << 12
"""Texts of each kind that are kept: most records repeat what others have."""


def json_lines(
    data: bytes | memoryview, first: int, lookup: Lookup | None = None, *, registers: bool = True
) -> Iterator[str]:
    """Yield one JSON object for each of whole records; `first` is the sequence number of the first.

    64-bit values are hex strings. `registers`: the general registers are members too.
    """
    for sequence, row in enumerate(unpack_records(data), first):
        (tsc, vector, cpl, flags, error_code, exit_int_info, rip, rsp, rflags, cr3, address,
         cs, ss, vcpu, cs_base, cr0, cr4, efer, dr6, event, *general) = row  # fmt: skip
        code = error_code if flags & RecordFlags.HAS_ERROR_CODE else None
        cr2 = f'"{address:#x}"' if flags & RecordFlags.HAS_ADDRESS else "null"
        others = _GENERAL % (*general,) if registers else ""
        symbol = "" if lookup is None else _symbol(lookup(linear_rip(rip, cs_base)))
        yield (
            f'{{"seq":{sequence},"tsc":{tsc},"vcpu":{vcpu},{_exception(vector, code)},"address":{cr2},'
            f'{_code_segment(cpl, cs)},"rip":"{rip:#x}","ss":"{ss:#x}","rsp":"{rsp:#x}",'
            f"{_control(rflags, cr0, cr3, cr4, efer, dr6)},{_delivery(exit_int_info, flags, event)},"
            f'"cs_base":"{cs_base:#x}"{others}{symbol}}}\n'
        )


@lru_cache(_KEPT)
def _exception(vector: int, code: int | None) -> str:
    return f'"vector":{vector},"name":"{mnemonic(vector)}","error_code":{"null" if code is None else code}'


@lru_cache(_KEPT)
def _code_segment(cpl: int, cs: int) -> str:
    return f'"cpl":{cpl},"cs":"{cs:#x}"'


@lru_cache(_KEPT)
def _control(rflags: int, cr0: int, cr3: int, cr4: int, efer: int, dr6: int) -> str:
    return (
        f'"rflags":"{rflags:#x}","cr0":"{cr0:#x}","cr3":"{cr3:#x}","cr4":"{cr4:#x}","efer":"{efer:#x}","dr6":"{dr6:#x}"'
    )


@lru_cache(_KEPT)
def _delivery(exit_int_info: int, flags: int, event: int) -> str:
    synthesized = "true" if flags & RecordFlags.SYNTHESIZED else "false"
    return (
        f'"vectoring":{event_text(exit_int_info)},"outcome":"{outcome_of(flags).value}",'
        f'"injected":{event_text(event)},"synthesized":{synthesized}'
    )


@lru_cache(_KEPT)
def _symbol(symbol: Symbol | None) -> str:
    """Return the members of an object that name an address, with a comma before them."""
    if symbol is None:
        return ""
    source = "" if symbol.source is None else f',"source":{json.dumps(symbol.source)}'
    return f',"symbol":{json.dumps(symbol.place)}{source}'


def event_text(word: int) -> str:
    """Return an event word as a value of JSON."""
    event = decode(word)
    if event is None:
        return "null"
    code = "null" if event.error_code is None else event.error_code
    return f'{{"vector":{event.vector},"type":"{EVENT_TYPES[event.type]}","error_code":{code}}}'
