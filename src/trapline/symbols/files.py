"""Symbol files: detects their kind, adds their slide, and looks an address up in several of them."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import Final

from trapline.errors import UsageError
from trapline.typed import read_integer, shortened

from . import elf, pe, text
from .call_frames import CallFrames, Row
from .demangle import demangle
from .lines import Lines
from .ranges import Ranges
from .slide import ENTRY, LANDMARKS, KernelValues, find_slide
from .symbol import Source, Symbol, first_own

_KEPT: Final = 1 << 16
"""How many addresses are cached."""
_LARGEST: Final = 1 << 64
_UNKNOWN: Final = (None, None)


class Symbols:
    """The functions and variables of one file, at their addresses in the guest."""

    def __init__(
        self,
        name: str,
        ranges: Ranges,
        lines: Lines | None = None,
        slide: int = 0,
        variables: Callable[[], Mapping[str, int]] = dict,
        link_base: int = 0,
        frames: CallFrames | None = None,
    ) -> None:
        """`variables` reads those of the file, when one is asked for."""
        self.name = name
        self.link_base = link_base
        """Where the image begins in the file's addresses."""
        self.slide = slide
        """The difference from the file's addresses to the guest's."""
        self._ranges = ranges
        self._lines = lines
        self._frames = frames
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
        shown = sources[first_own(sources)]
        return Symbol(name, offset, shown.file, shown.line, sources)

    def directory(self, address: int) -> str | None:
        """Return the directory in which the source of a linear address of the guest was compiled; None: unknown."""
        return None if self._lines is None else self._lines.directory(address - self.slide)

    def of_source(self, path: str) -> dict[int, list[int]]:
        """Return for each line of a source that has code the addresses in the guest, one in each function that has it.

        A function that is inlined is a part of each that inlines it. `path` is as for `Lines.of_source`.
        """
        found = {} if self._lines is None else self._lines.of_source(path)
        lines: dict[int, list[int]] = {}
        for line, addresses in found.items():
            first: dict[int | None, int] = {}
            for address in sorted(addresses):
                function = self._ranges.find(address)
                first.setdefault(None if function is None else function.start, address + self.slide)
            lines[line] = sorted(first.values())
        return lines

    def row(self, address: int) -> Row | None:
        """Return where the caller's registers are at an instruction of the guest; None: unknown."""
        return None if self._frames is None else self._frames.row(address - self.slide)

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
    """The symbols of several files: those of the first file take precedence. Lookups are cached.

    Several threads may use it: that of a run and the one that writes its trace. Files are read by one at a time.
    """

    def __init__(
        self, files: Iterable[Symbols] = (), unplaced: Iterable[Symbols] = (), movable: Iterable[Symbols] = ()
    ) -> None:
        """`unplaced`: Linux kernels whose slide is unknown. They are used once `place` has found it.

        `movable`: files that belong where an image of UEFI is loaded (`loaded`), whether they are used before or not.
        """
        self.movable = list(movable)
        self.files = list(files)
        self.unplaced = list(unplaced)
        self._images: Symbols | None = None
        self._known: dict[int, Symbol | None] = {}
        self._lock = RLock()

    def lookup(self, address: int) -> Symbol | None:
        """Return the symbol of a linear address of the guest; None: unknown."""
        known = self._known
        try:
            return known[address]
        except KeyError:
            pass
        with self._lock:
            if len(known) >= _KEPT:
                known.clear()
            files = self.files if self._images is None else (*self.files, self._images)
            found = known[address] = next(
                (symbol for file in files if (symbol := file.lookup(address)) is not None), None
            )
        return found

    def address(self, name: str) -> int | None:
        """Return the address of a function or variable in the guest, by its name in the file; None: unknown."""
        with self._lock:
            for file in self.files:
                found = file.addresses((name,)) or file.variables
                if name in found:
                    return found[name] + file.slide
        return None

    def directory(self, address: int) -> str | None:
        """Return the directory in which the source of a linear address was compiled; None: unknown."""
        with self._lock:
            return next((found for file in self.files if (found := file.directory(address)) is not None), None)

    def of_source(self, path: str) -> dict[int, list[int]]:
        """Return for each line of a source that has code the addresses in the guest, as the first file has them.

        `path` may be where a user has the source: see `source_paths.best`. Empty: the source is unknown.
        """
        with self._lock:
            return next((found for file in self.files if (found := file.of_source(path))), {})

    def row(self, address: int) -> Row | None:
        """Return where the caller's registers are at an instruction of the guest; None: unknown."""
        with self._lock:
            return next((row for file in self.files if (row := file.row(address)) is not None), None)

    def caller(self, address: int) -> Symbol | None:
        """Return the symbol of a return address: of its call, which may be the last instruction of a function."""
        found = self.lookup(address - 1)
        return None if found is None else found._replace(offset=found.offset + 1)

    def text(self, address: int) -> str | None:
        """Return the symbol of an address as text, with the source line if known."""
        found = self.lookup(address)
        return None if found is None else str(found)

    def use(self, files: Iterable[tuple[Symbols, int]], images: Symbols | None) -> None:
        """Use other files from now on, each with its slide, and after them the names of whole images."""
        with self._lock:
            placed = dict(files)
            for file, slide in placed.items():
                file.slide = slide
            self.files, self._images = list(placed), images
            self._known.clear()

    def place(self, values: KernelValues) -> None:
        """Find the slide of the unplaced kernels from the entry points of the one that runs."""
        with self._lock:
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
    """Return the symbols of an ELF or PE file; None: it is stripped, damaged, or neither."""
    try:
        with opener() as file:
            head = file.read(len(pe.MAGIC))
        code = pe.read(opener) if head == pe.MAGIC else elf.read(opener)
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
    if head.startswith(pe.MAGIC):
        found = pe.read(opener)
        if found is None:
            raise UsageError("a portable executable without symbols: it was stripped, or has them in a PDB")
        return _of_code(name, found, opener, slide)
    if text.present(head):
        with opener() as file:
            ranges = text.parse(file)
        return Symbols(name, ranges, None, slide, partial(text.variables, opener))
    raise UsageError("not a symbol file: neither ELF nor PE nor lines of a System.map or of kallsyms")


def _of_code(name: str, code: elf.Code | pe.Code, opener: elf.Opener, slide: int) -> Symbols:
    lines = Lines(name, opener) if code.debug else None
    if isinstance(code, pe.Code):
        return Symbols(name, code.ranges, lines, slide, link_base=code.link_base)
    variables = partial(elf.variables, opener)
    return Symbols(name, code.ranges, lines, slide, variables, frames=CallFrames(name, opener))
