"""Where RAM is: between 640 KiB and 1 MiB a PC has a display and ROMs, and this machine a text screen alone."""

from collections.abc import Iterable, Iterator
from typing import Final

from trapline.arch.paging import PAGE

Range = tuple[int, int]
"""First gpa and the one after the last."""

_GAPS: Final = ((0xA_0000, 0xB_8000), (0xC_0000, 0x10_0000))
"""Without RAM, unless something is loaded there: before the screen in text mode and after it."""


def holes(size: int, loads: Iterable[tuple[int, bytes]]) -> list[Range]:
    """Return where the bus is, in pages, in `size` bytes of memory; a page that something is loaded to is RAM."""
    loaded = {
        page
        for gpa, data in loads
        for start, end in _GAPS
        for page in range(max(gpa, start) // PAGE, -(-min(gpa + len(data), end) // PAGE))
    }
    found: list[Range] = []
    for first, last in _GAPS:
        for page in range(first // PAGE, min(size, last) // PAGE):
            start = page * PAGE
            if page in loaded:
                continue
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], start + PAGE)
            else:
                found.append((start, start + PAGE))
    return found


def between(size: int, ranges: Iterable[Range]) -> Iterator[Range]:
    """Yield what is left of `size` bytes without some ranges, which are in order."""
    at = 0
    for start, end in (*ranges, (size, size)):
        if at < start:
            yield at, start
        at = end
