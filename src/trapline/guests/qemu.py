"""The options with which QEMU boots a guest."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trapline.errors import UsageError

from .formats.esp import PROGRAM
from .formats.fat import volume
from .guest import GuestKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .guest import Guest

_BARE = {
    GuestKind.ELF: "QEMU's PC boots no ELF file without a multiboot header in the first 8 KiB or a PVH note "
    "(XEN_ELFNOTE_PHYS32_ENTRY): give the bzImage of a Linux kernel, build it with CONFIG_PVH, or link a multiboot "
    "header into it",
    GuestKind.RAW: "QEMU's PC boots no code without a header",
}
_KERNELS = frozenset({GuestKind.BZIMAGE, GuestKind.MULTIBOOT, GuestKind.PVH})
_BIOS_ONLY = frozenset({GuestKind.MULTIBOOT, GuestKind.PVH})


@contextlib.contextmanager
def in_file(guest: Guest) -> Iterator[Guest]:
    """Give an image in memory a file without a name, which is gone when this process is; an EFI program a volume there.

    Other guests have a file.
    """
    if not guest.in_memory and guest.kind is not GuestKind.EFI:
        yield guest
        return
    with os.fdopen(os.memfd_create("trapline.guest"), "wb") as file:
        file.write(volume(PROGRAM, guest.content) if guest.kind is GuestKind.EFI else guest.content)
        file.flush()
        yield replace(guest, path=Path(f"/proc/{os.getpid()}/fd/{file.fileno()}"))


def qemu_options(
    guest: Guest, *, initrd: Path | None = None, append: str | None = None, uefi: bool = False
) -> list[str]:
    """Return QEMU's options for the guest; raise UsageError where its kind takes no initrd or command line.

    File names are made absolute: QEMU reads `name:rest` as a protocol, and may run in another directory.
    A disk or floppy is written to by its guest, as with QEMU itself, a folder is not. `uefi`: UEFI firmware boots it.
    """
    if uefi and guest.kind in _BIOS_ONLY:
        raise UsageError(f"--uefi cannot be used for a {guest.kind.value} kernel: a boot loader has to start it there")
    if guest.kind in _KERNELS:
        return _kernel_options(guest, initrd, append)
    if guest.kind in _BARE:
        raise UsageError(f"{guest.path}: {guest.description}: {_BARE[guest.kind]}")
    of_efi = guest.kind in (GuestKind.EFI, GuestKind.FOLDER)
    what = f"an {guest.kind.value}" if of_efi else f"a {guest.kind.value} image"
    for value, option, why in (
        (initrd, "--initrd", "its own boot loader loads what it needs"),
        (append, "--append", "its command line is in its own boot loader's configuration"),
    ):
        if value is not None:
            raise UsageError(f"{option} is for kernels, but {guest.path} is {what}: {why}")
    name = str(guest.path.absolute())
    if guest.kind is GuestKind.ISO:
        return ["-cdrom", name, "-boot", "order=d"]
    if guest.kind is GuestKind.FOLDER:
        drive = f"file.driver=vvfat,file.dir={_escaped(name)},format=raw,snapshot=on,if=ide"
        return ["-drive", drive, "-boot", "order=c"]
    if guest.kind is GuestKind.FLOPPY and not uefi:
        return ["-drive", f"file={_escaped(name)},format={guest.format},if=floppy", "-boot", "order=a"]
    return ["-drive", f"file={_escaped(name)},format={guest.format},if=ide", "-boot", "order=c"]


def _kernel_options(guest: Guest, initrd: Path | None, append: str | None) -> list[str]:
    options = ["-kernel", str(guest.path.absolute())]
    if initrd is not None:
        options += ["-initrd", _initrd(guest, initrd)]
    if append is not None:
        options += ["-append", append]
    return options


def _initrd(guest: Guest, initrd: Path) -> str:
    if not initrd.is_file():
        raise UsageError(f"--initrd {initrd}: " + ("not a file" if initrd.exists() else "no such file"))
    name = str(initrd.absolute())
    if guest.kind is not GuestKind.MULTIBOOT:
        return name  # taken as it is, commas and all
    # For multiboot it is a list "FILE ARGUMENTS,FILE ARGUMENTS", where only the comma can be escaped.
    if " " in name:
        raise UsageError(f"--initrd {initrd}: QEMU cannot load a multiboot module whose name has a space")
    return _escaped(name)


def _escaped(name: str) -> str:
    return name.replace(",", ",,")
