"""The symbol of an address, with its place in the sources."""

from collections.abc import Sequence
from typing import Final, NamedTuple

_LIBRARIES: Final = (
    "/rustc/", "/rustlib/src/", "/.cargo/registry/", "/.cargo/git/", "/usr/include/", "/usr/lib/", "/zig/lib/",
)  # fmt: skip
"""Parts of the paths of sources that a user did not write."""


class Source(NamedTuple):
    """A place in the sources, in a function that may have been inlined."""

    function: str
    """Names of C++ and Rust are demangled."""
    file: str | None
    """None: unknown."""
    line: int | None

    @property
    def place(self) -> str | None:
        """File and line: `lib/string.c:88`."""
        return None if self.file is None else f"{self.file}:{self.line}"

    @property
    def is_library(self) -> bool:
        """Whether the file is of a compiler's or a package manager's library, and not the user's own."""
        return self.file is not None and any(part in f"/{self.file}" for part in _LIBRARIES)


def place_in(name: str, offset: int | None) -> str:
    """Return a place in a function, as `memset+0x1a`; None: where in it is not known."""
    return name if offset is None else f"{name}+{offset:#x}"


class Symbol(NamedTuple):
    """The symbol of an address."""

    name: str
    """The function; names of C++ and Rust are demangled."""
    offset: int
    """Bytes from the start of the function."""
    file: str | None = None
    """The source file; None: unknown. Where functions were inlined: the innermost that is not a library's."""
    line: int | None = None
    """The source line."""
    inlined: tuple[Source, ...] = ()
    """The functions that were inlined there, innermost first, then the function itself; empty: none were."""

    @property
    def place(self) -> str:
        """The name with the offset: `memset+0x1a`."""
        return place_in(self.name, self.offset)

    @property
    def source(self) -> str | None:
        """File and line: `lib/string.c:88`."""
        return None if self.file is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        if self.file is None:
            return self.place
        own = first_own(self.inlined)
        text = self.source or ""
        if own < len(self.inlined) - 1:
            text += f" in {self.inlined[own].function}"
        if own:
            text += f", which inlines {self.inlined[own - 1].function}"
        for number, outer in enumerate(self.inlined[own + 1 :], own + 2):
            text += f", inlined at {outer.place or outer.function}"
            if number < len(self.inlined):
                text += f" in {outer.function}"
        return f"{self.place} ({text})"


def first_own(sources: Sequence[Source]) -> int:
    """Return the number of the first place that is not a library's."""
    return next((number for number, source in enumerate(sources) if not source.is_library), 0)
