"""A log of `qemu -d int,cpu_reset` as the records of `run -o`, without the fields that the log lacks.

QEMU logs an exception twice (QEMU 7.2, target/i386/tcg): `check_exception old: A new B` when it is raised, A being what
is under delivery where that is contributory, a page fault or a double fault; and when it is to be delivered a line with
`v=`, followed by the CPU's state, in real mode never. An interrupt has no first line, INT3, INTO and INT n neither.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from trapline.arch.bits import M64
from trapline.arch.events import Event, EventType, combine
from trapline.arch.vectors import SOFTWARE_EXCEPTIONS, VECTORS, ErrorCode, Vector, mnemonic
from trapline.errors import UsageError

from .exception_record import Lookup

_RAISED: Final = re.compile(r"check_exception old: 0x([0-9a-f]{1,8}) new 0x([0-9a-f]{1,2})\s*$")
_DELIVERED: Final = re.compile(
    r"\s*\d+: v=(?P<vector>[0-9a-f]{2}) e=(?P<code>[0-9a-f]{1,8}) i=(?P<soft>[01]) cpl=(?P<cpl>[0-3])"
    r" IP=(?P<cs>[0-9a-f]{4}):(?P<rip>[0-9a-f]{1,16}) pc=(?P<pc>[0-9a-f]{1,16})"
    r" SP=(?P<ss>[0-9a-f]{4}):(?P<rsp>[0-9a-f]{1,16})(?: CR2=(?P<cr2>[0-9a-f]{1,16}))?"
)
_INTERRUPT: Final = re.compile(r"Servicing (?:virtual )?hardware INT=0x([0-9a-f]{2})")
_OTHERS: Final = re.compile(r"CPU Reset \(CPU \d+\)|SMM: (?:enter|after RSM)|Triple fault")
_REGISTER: Final = re.compile(r"\b(RFL|EFL|CR0|CR3|CR4|DR6|EFER)=([0-9a-f]{8,16})")
_NAMES: Final = {
    "RFL": "rflags", "EFL": "rflags", "CR0": "cr0", "CR3": "cr3", "CR4": "cr4", "DR6": "dr6", "EFER": "efer",
}  # fmt: skip
_ORDER: Final = (
    "seq", "vector", "name", "error_code", "address", "cpl", "cs", "cs_base", "rip", "ss", "rsp", "rflags",
    "cr0", "cr3", "cr4", "efer", "dr6", "vectoring", "outcome", "injected", "symbol", "source",
)  # fmt: skip
_NOTHING: Final = 0xFFFF_FFFF

_LONGEST: Final = 1 << 16
"""Bytes of a line; QEMU's have some 200."""

Fields = dict[str, Any]


def log_lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a log. Raises UsageError, without the file's name, for one that is too long for a log."""
    number = 0
    while line := file.readline(_LONGEST + 1):
        number += 1
        if len(line) > _LONGEST:
            raise UsageError(f"line {number} is longer than {_LONGEST:,} bytes: not a log of qemu -d int,cpu_reset")
        yield line.decode("ascii", "replace")


def records(log: Iterable[str], lookup: Lookup | None = None) -> Iterator[str]:
    """Yield one JSON object a line for each exception of a log; `lookup` names its RIP.

    Fields that the log lacks are left out; null means, as in every record, that there is none. Raises UsageError
    after the last line where none of the lines is QEMU's; its message lacks the file's name.
    """
    reader = _Reader()
    number = 0
    for line in log:
        for fields in reader.read(line):
            yield _json(fields, number, lookup)
            number += 1
    for fields in reader.end():
        yield _json(fields, number, lookup)
        number += 1
    if not reader.known:
        raise UsageError("not a log of qemu -d int,cpu_reset: it has no line of one")


class _Reader:
    """Joins the lines of one exception."""

    def __init__(self) -> None:
        self.known = False
        """Whether a line was QEMU's."""
        self._open: Fields | None = None
        """An exception of which more may come."""
        self._state = False
        """The lines of the CPU's state follow."""
        self._interrupt: int | None = None
        self._code: int | None = None
        """The error code that was last delivered."""

    def read(self, line: str) -> Iterator[Fields]:
        """Take a line; yield the exceptions that are complete now."""
        if self._state:
            for name, value in _REGISTER.findall(line):
                if self._open is not None:
                    self._open.setdefault(_NAMES[name], f"{int(value, 16):#x}")
                self._state = name != "EFER"  # the last that is of use
        if match := _RAISED.match(line):
            yield from self.end()
            yield from self._raised(int(match[1], 16), int(match[2], 16))
        elif match := _DELIVERED.match(line):
            yield from self._delivered(match)
        elif match := _INTERRUPT.match(line):
            yield from self.end()
            self._interrupt = int(match[1], 16)
        elif not _OTHERS.match(line):
            return
        self.known = True

    def end(self) -> Iterator[Fields]:
        """Yield the exception that is complete because the log ends or another one follows."""
        if self._open is not None:
            yield self._open
        self._open, self._state, self._interrupt = None, False, None

    def _raised(self, old: int, new: int) -> Iterator[Fields]:
        if new >= len(VECTORS) or (old >= len(VECTORS) and old != _NOTHING):
            return
        fields: Fields = {"vector": new}
        if old != _NOTHING:  # otherwise something that is not contributory may be under delivery
            fields["vectoring"] = _event(old, self._code)
        if old == Vector.DF:
            yield fields | {"outcome": "shutdown", "injected": None}
        elif _doubles(old, new):
            yield fields | {"outcome": "combined", "injected": _event(Vector.DF, 0)}
            self._open = {"vector": int(Vector.DF), "vectoring": None}
        else:
            self._open = fields

    def _delivered(self, match: re.Match[str]) -> Iterator[Fields]:
        vector, soft = int(match["vector"], 16), match["soft"] == "1"
        if self._open is None or self._open["vector"] != vector or "rip" in self._open:
            interrupt = self._interrupt
            yield from self.end()
            if vector == interrupt or vector == Vector.NMI or vector >= len(VECTORS):
                return
            if soft and not SOFTWARE_EXCEPTIONS >> vector & 1:  # INT n
                return
            self._open = {"vector": vector}
        self._state = True
        self._code = int(match["code"], 16)
        self._open |= {
            "cpl": int(match["cpl"]),
            "error_code": _code(vector, self._code),
            "address": f"{int(match['cr2'], 16):#x}" if match["cr2"] else None,
            **{name: f"{int(match[name], 16):#x}" for name in ("cs", "rip", "ss", "rsp")},
            "outcome": "forwarded",
            "injected": _event(vector, self._code),
            "pc": int(match["pc"], 16),
        }


def _doubles(old: int, new: int) -> bool:
    """Return whether two exceptions make a #DF."""
    first, second = (Event(vector, EventType.EXCEPTION) for vector in (old, new))
    combined = combine(first, second)
    return isinstance(combined, Event) and combined.vector == Vector.DF and new != Vector.DF


def _code(vector: int, code: int | None) -> int | None:
    has_none = vector >= len(VECTORS) or VECTORS[vector].error_code is ErrorCode.ABSENT
    return None if has_none else code


def _event(vector: int, code: int | None) -> Fields:
    return {"vector": int(vector), "type": "exception", "error_code": _code(vector, code)}


def _json(fields: Fields, number: int, lookup: Lookup | None) -> str:
    address = fields.get("pc")
    symbol = None if lookup is None or address is None else lookup(address)
    if symbol is not None:
        fields["symbol"] = symbol.place
        if symbol.source is not None:
            fields["source"] = symbol.source
    if address is not None:
        fields["cs_base"] = f"{address - int(fields['rip'], 16) & M64:#x}"
    fields |= {"seq": number, "name": mnemonic(fields["vector"])}
    return json.dumps({name: fields[name] for name in _ORDER if name in fields}, separators=(",", ":")) + "\n"
