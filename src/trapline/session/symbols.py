"""The symbols of a run: from the files that the user names, and from the guest's image."""

import io
from collections.abc import Sequence
from functools import partial

from trapline.arch.bits import M64
from trapline.errors import UsageError
from trapline.guests.guest import Guest
from trapline.symbols import Names, Symbols, elf, load, parse_option
from trapline.symbols.files import of_image
from trapline.typed import read_integer, shortened


def open_names(options: Sequence[str], guest: Guest | None) -> Names:
    """Load the files of `--symbols`, each FILE[@SLIDE], then the guest's own symbols if it has some.

    The slide of a Linux kernel that was given without one is found while the guest runs. Raises UsageError.
    """
    files: list[Symbols] = []
    unplaced: list[Symbols] = []
    for option in options:
        path, slide = parse_option(option)
        file = load(path, slide or 0)
        (unplaced if slide is None and file.is_linux else files).append(file)
    if guest is not None and guest.image is not None:
        opener = partial(io.BytesIO, guest.content) if guest.in_memory or guest.whole else elf.opener(guest.path)
        own = of_image(str(guest.path), opener)
        if own is not None:
            (unplaced if own.is_linux else files).append(own)
    return Names(files, unplaced)


def resolve(names: Names, place: int | str) -> int:
    """Return the linear address of a place: an address as it is, or a function or variable as `kmain` or `kmain+0x10`.

    Raises UsageError for a name that the symbols do not have, and for what is not an address.
    """
    if isinstance(place, int):
        return _linear(place, place)
    if not isinstance(place, str):
        raise UsageError(f"{place!r} is not a place: give an address or the name of a function")
    name, plus, offset = place.partition("+")
    distance = read_integer(offset) if plus else 0
    if distance is None:
        raise UsageError(f"{shortened(place)}: {shortened(offset)!r} is not a number of bytes")
    address = names.address(name)
    if address is None:
        known = "no symbols are loaded" if not names.files else "the symbols have no such function or variable"
        raise UsageError(f"{name}: {known}")
    return _linear(place, address + distance)


def _linear(place: int | str, address: int) -> int:
    if not 0 <= address <= M64:
        raise UsageError(f"{place if isinstance(place, str) else hex(place)}: a linear address has up to 64 bits")
    return address


def placed_names(options: Sequence[str]) -> Names:
    """Load the files of `--symbols` for a command without a guest. Raises UsageError for a kernel without a slide."""
    names = open_names(options, None)
    for file in names.unplaced:
        raise UsageError(f"--symbols {file.name}: the slide of a Linux kernel is needed: {file.name}@SLIDE, or @0")
    return names
