"""Callers by DWARF's call frame information (DWARF 5, 6.4), which compilers write with `-g`: .debug_frame or .eh_frame.

It says for each instruction where the caller's registers are, also in functions that keep no frame pointer.
"""

import io
import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .backtrace import Reader
from .bounded import Meter, Metered, content, open_elf
from .elf import Opener

log = logging.getLogger(__name__)

_READS: Final = 1_000_000
"""Of all entries of a file: three seconds."""
_LARGEST: Final = 64 << 20
"""Bytes of the section."""
_DEEPEST: Final = 32
_SECTIONS: Final = {".debug_frame": False, ".eh_frame": True}
"""The sections, and whether they are in the format of the second one."""
REGISTERS: Final[Mapping[int, tuple[str, ...]]] = {
    64: ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16))),
    32: ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
}
"""By DWARF's numbers, by the size of code (System V ABI, AMD64, figure 3.36; i386, table 2.14)."""


class Row(NamedTuple):
    """Where the registers of the caller are, at one instruction."""

    bits: int
    """The size of the code: 32 or 64."""
    base: int
    """The number of the register from which the canonical frame address is counted."""
    offset: int
    saved: Mapping[int, int]
    """Where registers were saved, from that address; the number after the last one is the return address."""


class CallFrames:
    """The call frame information of a file."""

    def __init__(self, name: str, opener: Opener) -> None:
        """`name` is the file's, for messages."""
        self._name, self._opener = name, opener
        self._entries: list[tuple[int, int, Any]] | None = None
        self._bits = 0

    def row(self, address: int) -> Row | None:
        """Return the row of an address in the file; None: there is none, or it is more than offsets."""
        if self._entries is None:
            self._entries = self._open()
        place = bisect_right(self._entries, address, key=lambda entry: entry[0]) - 1
        begin, end, entry = self._entries[place] if place >= 0 else (0, 0, None)
        return self._decoded(entry, address) if begin <= address < end else None

    def _open(self) -> list[tuple[int, int, Any]]:
        found: list[tuple[int, int, Any]] = []
        try:
            with self._opener() as file:
                elf = open_elf(file)
                self._bits = elf.elfclass
                for name, is_eh in _SECTIONS.items():
                    found += _entries(elf, name, is_eh=is_eh)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # on damaged tables the library raises anything
            log.debug("%s: %r", self._name, error)
        return sorted(found, key=lambda entry: entry[:2])

    def _decoded(self, entry: Any, address: int) -> Row | None:  # noqa: ANN401  # a library without hints
        try:
            return _row(entry.get_decoded().table, address, self._bits)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            log.debug("%s: %r", self._name, error)
            return None


def _entries(elf: Any, name: str, *, is_eh: bool) -> list[tuple[int, int, Any]]:  # noqa: ANN401  # as above
    """Return begin, end and the entry for each function in a section."""
    from elftools.dwarf.callframe import FDE, CallFrameInfo
    from elftools.dwarf.structs import DWARFStructs

    section = elf.get_section_by_name(name)
    if section is None:
        return []
    data = content(elf, section, _LARGEST)
    stream: Any = Metered(io.BytesIO(data), Meter(_READS))
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=elf.elfclass // 8)
    information = CallFrameInfo(stream, len(data), section["sh_addr"], structs, for_eh_frame=is_eh)
    headers = ((entry.header, entry) for entry in information.get_entries() if isinstance(entry, FDE))
    return [
        (header.initial_location, header.initial_location + header.address_range, entry) for header, entry in headers
    ]


def _row(table: list[Any], address: int, bits: int) -> Row | None:
    """Return the last row of a function that begins at an address or before."""
    found = None
    for row in table:
        if row["pc"] > address:
            break
        found = row
    if found is None or found["cfa"].reg is None:
        return None
    saved = {key: rule.arg for key, rule in found.items() if isinstance(key, int) and rule.type == "OFFSET"}
    return Row(bits, found["cfa"].reg, found["cfa"].offset, saved)


def unwind(
    read: Reader,
    registers: Mapping[str, int],
    address: int,
    bits: int,
    row: Callable[[int], Row | None],
    is_code: Callable[[int], bool],
) -> list[int]:
    """Return the return addresses of the callers, innermost first, as far as rows lead.

    `address` is that of the instruction at which `registers` were read, and `row` returns the row of an address.
    """
    names = REGISTERS.get(bits, ())
    values = [registers[name] for name in names]
    width, found = bits // 8, [] if not names else [address]
    while found and len(found) <= _DEEPEST:
        at = row(found[-1] - (len(found) > 1))  # a call may be the last instruction of its function
        if at is None or at.bits != bits or at.base >= len(values) or len(names) not in at.saved:
            break
        frame = values[at.base] + at.offset & (1 << bits) - 1
        stored = {key: read(frame + offset & (1 << bits) - 1, width) for key, offset in at.saved.items()}
        if any(len(data) < width for data in stored.values()):
            break
        numbers = {key: int.from_bytes(data, "little") for key, data in stored.items()}
        if not is_code(numbers[len(names)]) or frame <= values[names.index("rsp")]:
            break
        values = [numbers.get(key, value) for key, value in enumerate(values)]
        values[names.index("rsp")] = frame
        found.append(numbers[len(names)])
    return found[1:]
