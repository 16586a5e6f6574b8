"""Functions that a compiler inlined, from DWARF's entries of a unit (DWARF 5, 3.3.8).

Entries are read one after another and never back, each once: a file may be damaged, or made to take all time.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from .demangle import demangle

_SCOPES: Final = frozenset(
    f"DW_TAG_{name}"
    for name in (
        "compile_unit",
        "namespace",
        "module",
        "structure_type",
        "class_type",
        "union_type",
        "enumeration_type",
    )
)
"""What may have functions in it."""
_BLOCKS: Final = frozenset(f"DW_TAG_{name}" for name in ("inlined_subroutine", "lexical_block", "try_block"))
_REFERENCES: Final = ("DW_AT_abstract_origin", "DW_AT_specification")
_FARTHEST: Final = 8
"""References from an entry to the one that has its name."""


class Call(NamedTuple):
    """An inlined call."""

    name: str
    """Of the function that was inlined."""
    file: int
    """The number of the file with the call, in the unit's line table; 0 may be none."""
    line: int


class _Function(NamedTuple):
    """A function's own code."""

    begin: int
    end: int
    inside: int
    """Where the entries inside it begin."""


class Functions:
    """The functions of one unit."""

    def __init__(self, dwarf: Any, unit: Any) -> None:  # noqa: ANN401  # a library without hints
        """Read where they are. Raises what the library does for damaged entries."""
        self._dwarf, self._unit = dwarf, unit
        self._end = unit.cu_offset + unit.size
        self._functions = [
            _Function(begin, end, entry.offset + entry.size)
            for entry in self._subprograms()
            for begin, end in ranges(dwarf, unit, entry)
        ]
        self._calls: dict[int, list[tuple[list[tuple[int, int]], Call]]] = {}

    def calls(self, address: int) -> list[Call]:
        """Return the inlined calls that an address is in, outermost first."""
        inside = next((each.inside for each in self._functions if each.begin <= address < each.end), None)
        if inside is None:
            return []
        if inside not in self._calls:
            self._calls[inside] = list(self._read(inside))
        return [call for places, call in self._calls[inside] if any(begin <= address < end for begin, end in places)]

    def _subprograms(self) -> Iterator[Any]:
        offset = self._unit.cu_die_offset
        while offset < self._end:
            entry = self._entry(offset)
            offset += entry.size
            if entry.tag == "DW_TAG_subprogram" and entry.has_children:
                yield entry
            if entry.tag not in _SCOPES:
                offset = max(offset, self._sibling(entry))

    def _read(self, offset: int) -> Iterator[tuple[list[tuple[int, int]], Call]]:
        """Yield the inlined calls of a function with the ranges of their code, each before those inside it."""
        depth = 1
        while depth and offset < self._end:
            entry = self._entry(offset)
            offset += entry.size
            if entry.is_null():
                depth -= 1
                continue
            name = _name(entry) if entry.tag == "DW_TAG_inlined_subroutine" else None
            if name is not None:
                file, line = (entry.attributes.get(f"DW_AT_call_{what}") for what in ("file", "line"))
                call = Call(name, file.value if file else 0, line.value if line else 0)
                yield list(ranges(self._dwarf, self._unit, entry)), call
            sibling = 0 if entry.tag in _BLOCKS else self._sibling(entry)
            if sibling > offset:
                offset = sibling
            elif entry.has_children:
                depth += 1

    def _entry(self, offset: int) -> Any:  # noqa: ANN401  # a library without hints
        from elftools.dwarf.die import DIE

        return DIE(self._unit, self._dwarf.debug_info_sec.stream, offset)

    def _sibling(self, entry: Any) -> int:  # noqa: ANN401  # as above
        """Return the offset of what follows an entry and all inside it; 0: it does not say."""
        found = entry.attributes.get("DW_AT_sibling")
        return found.value + self._unit.cu_offset if found and found.form.startswith("DW_FORM_ref") else 0


def ranges(dwarf: Any, unit: Any, entry: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401  # a library without hints
    """Yield begin and end of the code of an entry (DWARF 5, 2.17)."""
    low, high, ranges = (entry.attributes.get(f"DW_AT_{name}") for name in ("low_pc", "high_pc", "ranges"))
    if ranges is not None:
        start = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        base = start.value if start else 0
        for each in dwarf.range_lists().get_range_list_at_offset(ranges.value, unit):
            if hasattr(each, "base_address"):
                base = each.base_address
            else:
                start = 0 if getattr(each, "is_absolute", False) else base
                yield each.begin_offset + start, each.end_offset + start
    elif low is not None and high is not None:
        yield low.value, high.value if high.form == "DW_FORM_addr" else low.value + high.value


def _name(entry: Any) -> str | None:  # noqa: ANN401  # as above
    """Return the name of an entry's function, with its namespace where it is mangled."""
    for _ in range(_FARTHEST):
        attributes = entry.attributes
        for key in ("DW_AT_linkage_name", "DW_AT_MIPS_linkage_name", "DW_AT_name"):
            if key in attributes:
                return demangle(attributes[key].value.decode("utf-8", "replace"))
        reference = next((key for key in _REFERENCES if key in attributes), None)
        if reference is None:
            return None
        entry = entry.get_DIE_from_attribute(reference)
    return None
