"""The symbols of a run: from the files that the user names, and from the guest's image."""

import io
from collections.abc import Sequence
from functools import partial

from trapline.arch.bits import M64
from trapline.errors import UsageError
from trapline.guests.guest import Guest, GuestKind
from trapline.symbols import Names, Symbols, elf, load, parse_option
from trapline.symbols.files import of_image
from trapline.typed import read_integer, shortened


def open_names(options: Sequence[str], guest: Guest | None) -> Names:
    """Load the files of `--symbols`, each FILE[@SLIDE], then the guest's own symbols if it has some.

    The slide of a Linux kernel that was given without one is found while the guest runs. Raises UsageError.
    """
    files: list[Symbols] = []
    unplaced: list[Symbols] = []
    movable: list[Symbols] = []
    for option in options:
        path, slide = parse_option(option)
        file = load(path, slide or 0)
        (unplaced if slide is None and file.is_linux else files).append(file)
        if slide is None and not file.is_linux:
            movable.append(file)
    own = None if guest is None else _own(guest)
    if own is not None and guest is not None and guest.kind is GuestKind.EFI:
        movable.append(own)
    elif own is not None:
        (unplaced if own.is_linux else files).append(own)
    return Names(files, unplaced, movable)


def _own(guest: Guest) -> Symbols | None:
    """Return the symbols of the guest's own image; None: it has none."""
    is_efi = guest.kind is GuestKind.EFI
    if guest.image is None and not is_efi:
        return None
    whole = guest.in_memory or guest.whole or is_efi
    return of_image(str(guest.path), partial(io.BytesIO, guest.content) if whole else elf.opener(guest.path))


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
