"""From a recognised guest to what a bare machine boots, or to the reason why it needs a PC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.errors import GuestImageError, UsageError
from trapline.guests.guest import GuestKind

from .executable import executable
from .multiboot import Module, multiboot
from .pvh import pvh
from .ram import Ram
from .raw import DEFAULT_ADDRESS, boot_sector, raw

if TYPE_CHECKING:
    from pathlib import Path

    from trapline.guests.guest import Guest
    from trapline.machine.boot import Boot

_HARD_DISK, _FLOPPY = 0x80, 0x00
_TAKE_A_COMMAND_LINE: Final = frozenset({GuestKind.MULTIBOOT, GuestKind.PVH})
MODES: Final = (16, 32, 64)


@dataclass(frozen=True, slots=True)
class NeedsPc:
    """A guest that a bare machine cannot run."""

    reason: str
    """What it lacks there, on one line for the user."""


_NEED_A_PC: Final = {
    GuestKind.BZIMAGE: NeedsPc("a Linux kernel needs a PC: its BIOS tables, timers and interrupt controllers"),
    GuestKind.ISO: NeedsPc("an ISO image needs a PC: a BIOS that boots from a CD drive"),
    GuestKind.DISK: NeedsPc("a disk image needs a PC: the BIOS that its boot sector calls, and the disk itself"),
    GuestKind.FLOPPY: NeedsPc("a floppy image needs a PC: the BIOS that its boot sector calls, and the floppy itself"),
}
_NEEDS_UEFI: Final = {
    GuestKind.EFI: "an EFI program",
    GuestKind.FOLDER: "a folder with an EFI program",
    GuestKind.ISO: "an ISO image with a boot loader for UEFI only",
    GuestKind.DISK: "a disk image with an EFI system partition and no boot sector",
}


class Entry(NamedTuple):
    """The user's settings of the entry."""

    mode: int | None = None
    """The size of the first instruction's code: 16, 32 or 64. The file is then taken as a raw image."""
    address: int | None = None
    """Where a raw image is loaded and entered; None: 0x7C00 in 16-bit code, else 1 MiB."""
    boot_sector: bool = False
    """Enter the boot sector of a disk or floppy though there is no BIOS."""


def bare_entry(
    guest: Guest,
    *,
    memory: int,
    entry: Entry = Entry(),  # noqa: B008  # it is immutable
    initrd: Path | None = None,
    append: str | None = None,
) -> Boot | NeedsPc:
    """Return how the guest enters a bare machine with `memory` bytes of RAM, or why it needs a PC.

    Raises GuestImageError where the image cannot be loaded, UsageError for options that do not fit its kind.
    """
    if entry.mode is None and entry.address is not None and guest.kind is not GuestKind.RAW:
        raise UsageError(f"--load-address is for raw images, but {guest.path} is {guest.description}")
    if guest.format != "raw":
        return NeedsPc(f"a {guest.format} image needs a PC: QEMU opens it, and has the disk")
    if guest.uefi:
        return NeedsPc(f"{_NEEDS_UEFI[guest.kind]} needs a PC with UEFI firmware")
    sector = entry.boot_sector and guest.kind in (GuestKind.DISK, GuestKind.FLOPPY)
    if guest.kind in _NEED_A_PC and not sector and entry.mode is None:
        return _NEED_A_PC[guest.kind]
    kernel = entry.mode is None and guest.kind in _TAKE_A_COMMAND_LINE
    for value, option in ((initrd, "--initrd"), (append, "--append")):
        if value is not None and not kernel:
            raise UsageError(f"{option} is for multiboot and PVH kernels, but {guest.path} is entered without")
    modules = [] if initrd is None else [_module(initrd, memory)]
    try:
        return _boot(guest, memory, entry, modules, append)
    except GuestImageError as error:
        raise GuestImageError(f"{guest.path}: {error}") from None


def _boot(guest: Guest, memory: int, entry: Entry, modules: list[Module], append: str | None) -> Boot | NeedsPc:
    if entry.mode is not None:
        if entry.mode not in MODES:
            raise GuestImageError(f"there is no {entry.mode}-bit code: 16, 32 or 64")
        address = DEFAULT_ADDRESS[entry.mode] if entry.address is None else entry.address
        return raw(guest.content, entry.mode, address, memory)
    if guest.kind in (GuestKind.DISK, GuestKind.FLOPPY):
        return boot_sector(guest.content, _FLOPPY if guest.kind is GuestKind.FLOPPY else _HARD_DISK, memory)
    if guest.kind is GuestKind.RAW:
        raise GuestImageError("a raw image needs the mode in which it is entered: --entry-mode 16, 32 or 64")
    return _kernel(guest, Ram(memory), modules, append)


def _kernel(guest: Guest, ram: Ram, modules: list[Module], append: str | None) -> Boot | NeedsPc:
    if guest.header is not None:
        if guest.header.wants_video:
            return NeedsPc("the multiboot kernel asks for a video mode: it needs a PC")
        command_line = f"{guest.path} {append or ''}"
        return multiboot(guest.header, guest.image, guest.content, ram, command_line, modules)
    assert guest.image is not None, "what is neither media nor raw has a multiboot or an ELF header"
    if guest.kind is GuestKind.PVH and guest.image.pvh_entry is not None:
        return pvh(guest.image, guest.image.pvh_entry, guest.content, ram, append, modules)
    return executable(guest.image, guest.content, ram)


def _module(path: Path, memory: int) -> Module:
    if not path.is_file():
        raise UsageError(f"--initrd {path}: " + ("not a file" if path.exists() else "no such file"))
    try:
        if (size := path.stat().st_size) > memory:
            raise UsageError(f"--initrd {path}: {size} bytes, more than the RAM, which has {memory}")
        return Module(str(path.absolute()), path.read_bytes())
    except OSError as error:
        raise UsageError(f"--initrd {path}: {error.strerror}") from error
