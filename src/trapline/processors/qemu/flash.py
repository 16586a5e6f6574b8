"""Firmware in flash chips: those that the user's options name, and QEMU's options for ours."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from trapline.errors import UsageError

_DRIVE: Final = "if=pflash"


class Chip(NamedTuple):
    """A flash chip that the firmware is in."""

    file: str
    writable: bool = False
    """The guest may program it; what it writes is lost at the end."""
    variables: str | None = None
    """The file whose content the next chip has at first; None: the user names that chip."""


def is_flash(drive: str) -> bool:
    """Return whether the value of a `-drive` is a flash chip's."""
    return _DRIVE in drive.split(",")


def drive(name: str) -> str:
    """Return the value of a `-drive` that means what `-pflash` with a file name does."""
    return f"{_DRIVE},format=raw,file={name.replace(',', ',,')}"


def take_firmware(drives: Iterable[str]) -> tuple[Chip | None, tuple[str, ...]]:
    """Return the first chip, which has the reset vector, and the values of `-drive` for the others, in their order.

    Raises UsageError where it cannot be replaced by a copy.
    """
    firmware, others, taken = None, [], set[str]()
    for drive in drives:
        fields = _fields(drive)
        unit = fields.get("unit") or next(str(free) for free in range(len(taken) + 1) if str(free) not in taken)
        taken.add(unit)
        if unit == "0":
            firmware = _chip(drive, fields)
        else:
            others.append(drive if "unit" in fields else f"{drive},unit={unit}")
    if others and firmware is None:
        raise UsageError("-drive if=pflash: there is no unit 0, which has the firmware")
    return firmware, tuple(others)


def _fields(drive: str) -> dict[str, str]:
    parts = (part.replace("\0", ",").partition("=") for part in drive.replace(",,", "\0").split(","))
    return {name: value for name, _, value in parts}


def _chip(drive: str, fields: dict[str, str]) -> Chip:
    if "file" not in fields:
        raise UsageError(f"-drive {drive}: firmware in flash is named by file=")
    if fields.get("format", "raw") != "raw":
        raise UsageError(f"-drive {drive}: only firmware in a raw image can be used, not in {fields['format']}")
    readonly = fields.get("readonly", fields.get("read-only", "off"))
    return Chip(fields["file"], writable=readonly not in ("", "on", "yes", "true", "y"))


def options(names: Iterable[str], *, writable: bool) -> tuple[str, ...]:
    """Return QEMU's options for chips by the names of their files, from unit 0 on; `writable`: unit 0, too."""
    return tuple(
        part
        for unit, name in enumerate(names)
        for part in ("-drive", f"{drive(name)},unit={unit},readonly={'off' if unit or writable else 'on'}")
    )
