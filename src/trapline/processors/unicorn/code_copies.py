"""What one of several CPUs has translated: Unicorn notices the stores of this CPU to it, and not those of others."""

import mmap

from trapline.arch.paging import PAGE, PAGE_OFFSET, PAGE_SHIFT

from .memory import Ram


class CodeCopies:
    """The pages that a CPU has translated code of, as they were then."""

    def __init__(self, block: mmap.mmap, ram: Ram) -> None:
        self._block, self._ram = block, ram
        self._pages: dict[int, bytes] = {}
        self._masks: dict[int, int] = {}
        """Ones in the bytes of a page that were translated."""

    def note(self, gpa: int, size: int) -> None:
        """Remember that code at `gpa`, all in one page, was translated."""
        self._ram.note_code(gpa, size)
        page = gpa >> PAGE_SHIFT
        if page not in self._pages:
            self._pages[page] = self._read(page)
        self._masks[page] = self._masks.get(page, 0) | (1 << 8 * size) - 1 << 8 * (gpa & PAGE_OFFSET)

    def are_stale(self) -> bool:
        """Return whether a byte that was translated has changed since."""
        pages, masks = self._pages, self._masks
        for page, before in pages.items():
            now = self._read(page)
            if now == before:
                continue
            if (int.from_bytes(now, "little") ^ int.from_bytes(before, "little")) & masks[page]:
                return True
            pages[page] = now
        return False

    def clear(self) -> None:
        """Forget all: nothing is translated any more."""
        self._pages.clear()
        self._masks.clear()

    def _read(self, page: int) -> bytes:
        return self._block[page * PAGE : (page + 1) * PAGE]
