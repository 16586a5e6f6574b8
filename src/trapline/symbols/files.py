"""Symbol files: detects their kind, adds their slide, and looks an address up in several of them."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Final, NamedTuple

from trapline.errors import UsageError
from trapline.typed import read_integer, shortened

from . import elf, text
from .demangle import demangle
from .lines import Lines
from .ranges import Ranges
from .slide import ENTRY, LANDMARKS, KernelValues, find_slide

_KEPT: Final = 1 << 16
"""How many addresses are cached."""
_LARGEST: Final = 1 << 64
_LIBRARIES: Final = (
    "/rustc/", "/rustlib/src/", "/.cargo/registry/", "/.cargo/git/", "/usr/include/", "/usr/lib/", "/zig/lib/",
)  # fmt: skip
"""Parts of the paths of sources that a user did not write."""

_UNKNOWN: Final = (None, None)


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
        own = _own(self.inlined)
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


def _own(sources: Sequence[Source]) -> int:
    """Return the number of the first place that is not a library's."""
    return next((number for number, source in enumerate(sources) if not source.is_library), 0)


class Symbols:
    """The functions and variables of one file, at their addresses in the guest."""

    def __init__(
        self,
        name: str,
        ranges: Ranges,
        lines: Lines | None = None,
        slide: int = 0,
        variables: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`variables` reads those of the file, when one is asked for."""
        self.name = name
        self.slide = slide
        """The difference from the file's addresses to the guest's."""
        self._ranges = ranges
        self._lines = lines
        self._read_variables = variables

    def lookup(self, address: int) -> Symbol | None:
        """Return the symbol of a linear address of the guest; None: it is not in a function."""
        own = address - self.slide
        function = self._ranges.find(own)
        if function is None:
            return None
        name, offset = demangle(function.name), own - function.start
        line = None if self._lines is None else self._lines.find(own)
        if self._lines is None or line is None:
            return Symbol(name, offset)
        calls = self._lines.inlined(own)
        if not calls:
            return Symbol(name, offset, *line)
        lines = line, *(call.line or _UNKNOWN for call in calls)
        names = *(call.name for call in calls), name
        sources = tuple(Source(name, *each) for name, each in zip(names, lines, strict=True))
        shown = sources[_own(sources)]
        return Symbol(name, offset, shown.file, shown.line, sources)

    def addresses(self, names: Iterable[str]) -> dict[str, int]:
        """Return the addresses of functions and NASM's local labels in the file, by name; unknown ones are left out."""
        wanted, ranges = frozenset(names), self._ranges
        return {each.name: each.start for each in (*ranges.functions, *ranges.labels) if each.name in wanted}

    @cached_property
    def variables(self) -> Mapping[str, int]:
        """The addresses of variables in the file, by name. Raises UsageError if it cannot be read any more."""
        try:
            return self._read_variables()
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}") from error

    @property
    def is_linux(self) -> bool:
        """Whether it has the entry points of a Linux kernel, by which its slide can be found.

        Other kernels have functions called `page_fault` too, but not that of the system call's entry.
        """
        found = self.addresses(LANDMARKS)
        return ENTRY in found and len(found) > 2


class Names:
    """The symbols of several files: those of the first file take precedence. Lookups are cached."""

    def __init__(self, files: Iterable[Symbols] = (), unplaced: Iterable[Symbols] = ()) -> None:
        """`unplaced`: Linux kernels whose slide is unknown. They are used once `place` has found it."""
        self.files = list(files)
        self.unplaced = list(unplaced)
        self._known: dict[int, Symbol | None] = {}

    def lookup(self, address: int) -> Symbol | None:
        """Return the symbol of a linear address of the guest; None: unknown."""
        known = self._known
        try:
            return known[address]
        except KeyError:
            pass
        if len(known) >= _KEPT:
            known.clear()
        found = known[address] = next(
            (symbol for file in self.files if (symbol := file.lookup(address)) is not None), None
        )
        return found

    def address(self, name: str) -> int | None:
        """Return the address of a function or variable in the guest, by its name in the file; None: unknown."""
        for file in self.files:
            found = file.addresses((name,)) or file.variables
            if name in found:
                return found[name] + file.slide
        return None

    def caller(self, address: int) -> Symbol | None:
        """Return the symbol of a return address: of its call, which may be the last instruction of a function."""
        found = self.lookup(address - 1)
        return None if found is None else found._replace(offset=found.offset + 1)

    def text(self, address: int) -> str | None:
        """Return the symbol of an address as text, with the source line if known."""
        found = self.lookup(address)
        return None if found is None else str(found)

    def place(self, values: KernelValues) -> None:
        """Find the slide of the unplaced kernels from the entry points of the one that runs."""
        for file in tuple(self.unplaced):
            slide = find_slide(values, file.addresses(LANDMARKS))
            if slide is not None:
                file.slide = slide
                self.unplaced.remove(file)
                self.files.append(file)
                self._known.clear()


def load(path: Path, slide: int = 0) -> Symbols:
    """Read a symbol file: ELF, System.map or kallsyms. Raises UsageError.

    `slide` is the difference from the file's addresses to the guest's.
    """
    try:
        _check_kind(path)
        with path.open("rb") as file:
            head = file.read(64)
        return _parse(str(path), head, elf.opener(path), slide)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{str(path)!r}: {error}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _check_kind(path: Path) -> None:
    """Refuse a device, which has no end, and a FIFO, which waits for its writer, before they are opened."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UsageError("not a regular file")


def of_image(name: str, opener: elf.Opener) -> Symbols | None:
    """Return the symbols of an ELF file; None: it is stripped, damaged, or not an ELF file."""
    try:
        code = elf.read(opener)
    except (OSError, UsageError):
        return None
    return None if code is None else _of_code(name, code, opener, 0)


def parse_option(option: str) -> tuple[Path, int | None]:
    """Split `FILE[@SLIDE]`; a file of that whole name has no slide. Raises UsageError for a bad number."""
    path, at, slide = option.rpartition("@")
    if not at or os.path.exists(option):  # noqa: PTH110  # without an error for a name that is too long
        return Path(option), None
    number = read_integer(slide)
    if number is None or abs(number) >= _LARGEST:
        wanted = "a number of up to 64 bits such as 0x1000000"
        raise UsageError(
            f"--symbols {shortened(option)}: no such file, and {shortened(slide)!r} is not a slide: {wanted}"
        )
    return Path(path), number


def _parse(name: str, head: bytes, opener: elf.Opener, slide: int) -> Symbols:
    if elf.present(head):
        code = elf.read(opener)
        if code is None:
            raise UsageError("an ELF file without a symbol table: it was stripped")
        return _of_code(name, code, opener, slide)
    if text.present(head):
        with opener() as file:
            ranges = text.parse(file)
        return Symbols(name, ranges, None, slide, partial(text.variables, opener))
    raise UsageError("not a symbol file: neither ELF nor lines of a System.map or of kallsyms")


def _of_code(name: str, code: elf.Code, opener: elf.Opener, slide: int) -> Symbols:
    lines = Lines(name, opener) if code.debug else None
    return Symbols(name, code.ranges, lines, slide, partial(elf.variables, opener))
