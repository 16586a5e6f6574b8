"""Recognise a guest by its content, never by its name."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from trapline.errors import GuestImageError

from .formats import bzimage, elf, esp, foreign, limine, media, multiboot, pe, qcow2
from .guest import MEDIA_NAMES, Guest, GuestKind

_HEAD_SIZE: Final = 0x9000
"""Enough for every header looked at: the farthest is El Torito's boot record, the descriptor in sector 17."""
_LARGEST: Final = 512 << 20
"""Bytes of a file that are read, to be loaded: the largest kernels with an initrd inside have a fifth of it."""
_SMALL: Final = 64 << 20
"""Bytes of an ELF file that is read at once, with its symbols; of a larger one only what is loaded."""


class _File(NamedTuple):
    """An open file: its first bytes, and the rest to be read on."""

    head: bytes
    size: int
    file: BinaryIO

    def read(self, size: int | None = None) -> bytes:
        """Return the whole file, or its start: at least `size` bytes."""
        size = self.size if size is None else size
        if size > _LARGEST:
            raise GuestImageError(f"{size} bytes to load: more than {_LARGEST >> 20} MiB are not read")
        return self.head + self.part(len(self.head), max(size - len(self.head), 0))

    def part(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        self.file.seek(offset)
        return self.file.read(size)


def recognise(path: Path, medium: GuestKind | None = None) -> Guest:
    """Return the guest in a file; `medium`: of an image that a BIOS boots, what it is an image of.

    Raises GuestImageError that names what was looked for and what was found.
    """
    if medium is None and esp.folder_present(path):
        return Guest(path, GuestKind.FOLDER, f"folder with {'/'.join(esp.PROGRAM)}", b"", uefi=True)
    with _opened(path) as file:
        return _classify(path, file) if medium is None else _as_medium(path, file, medium)


def _as_medium(path: Path, file: _File, medium: GuestKind) -> Guest:
    head = file.head
    if bzimage.present(head) or elf.present(head):
        raise GuestImageError("--media is for images that a BIOS boots, not for kernels")
    described = f"{MEDIA_NAMES[medium]} image, as you said"
    if qcow2.present(head):
        return Guest(path, medium, f"{qcow2.describe(head)}, {described}", head, format="qcow2")
    if (sentence := foreign.name_it(head)) and not media.boot_signature_present(head):
        raise GuestImageError(sentence)
    return Guest(path, medium, described, head)


def raw_image(path: Path) -> Guest:
    """Return a file as raw code, whatever its content looks like."""
    with _opened(path) as file:
        return Guest(path, GuestKind.RAW, f"raw image of {file.size} bytes", file.read())


def _classify(path: Path, file: _File) -> Guest:
    head, size = file.head, file.size
    guest = partial(Guest, path, content=head)
    if bzimage.present(head):
        return guest(GuestKind.BZIMAGE, bzimage.describe(head, size))
    if elf.present(head):
        return _classify_elf(path, file)
    if media.iso_present(head):
        return guest(GuestKind.ISO, media.describe_iso(head), uefi=esp.iso_needs_uefi(head, file.part))
    if qcow2.present(head):
        return guest(GuestKind.DISK, qcow2.describe(head), format="qcow2")
    if (program := pe.find(head)) is not None and pe.is_efi_program(program):
        return Guest(path, GuestKind.EFI, f"EFI program of {media.readable(size)}", file.read(), uefi=True)
    if sentence := foreign.name_it(head):
        raise GuestImageError(sentence)
    # The boot signature comes before flat multiboot: GRUB's core image, in the gap after the MBR of most
    # disks, carries a multiboot header with addresses of its own, and the disk is what the user means.
    if media.boot_signature_present(head):
        return _classify_disk(path, file)
    if header := multiboot.find(head):
        description = multiboot.describe_flat(header, size)
        return Guest(path, GuestKind.MULTIBOOT, description, file.read(), header=header)
    multiboot.check_not_late(head)
    raise GuestImageError(_not_known(head, size))


def _classify_disk(path: Path, file: _File) -> Guest:
    head, size = file.head, file.size
    guest = partial(Guest, path, content=head)
    if esp.disk_needs_uefi(head, file.part):
        return guest(GuestKind.DISK, f"{media.describe_disk(head, size)}, which UEFI firmware boots", uefi=True)
    if floppy := media.describe_floppy(head, size):
        return guest(GuestKind.FLOPPY, f"{floppy} (--media disk: a hard disk)")
    return guest(GuestKind.DISK, media.describe_disk(head, size) + _other_medium(size))


def _other_medium(size: int) -> str:
    return " (--media floppy: a floppy)" if size <= media.LARGEST_FLOPPY else ""


def _classify_elf(path: Path, file: _File) -> Guest:
    header = multiboot.find(file.head)
    whole = file.size <= _SMALL or (header is not None and header.has_addresses)
    content = file.read(None if whole else elf.loaded_size(file.head, file.size, file.part))
    image = elf.parse(content, file.size)
    guest = partial(Guest, path, content=content, image=image, whole=len(content) == file.size)
    if header is not None:
        return guest(GuestKind.MULTIBOOT, multiboot.describe_elf(header, image), header=header)
    if image.pvh_entry is not None:
        return guest(GuestKind.PVH, f"{image.name} with a PVH note, entry at {image.pvh_entry:#x}")
    if multiboot.multiboot2_present(content):
        raise GuestImageError(
            f"{image.name} with a multiboot 2 header only: QEMU's -kernel takes multiboot 1 or a PVH note; "
            "add one of them, or boot it by GRUB from an ISO image (grub-mkrescue)"
        )
    if limine.present(content):
        raise GuestImageError(limine.REFUSAL)
    multiboot.check_not_late(content)
    if image.needs_loader:
        raise GuestImageError(f"{image.name} that names a dynamic loader: a program for an operating system")
    return guest(GuestKind.ELF, f"{image.name}, entry at {image.entry:#x}")


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    """Open a file; errors that are raised while it is open get its name."""
    try:
        size = _size(path)
        with path.open("rb") as file:
            yield _File(file.read(_HEAD_SIZE), size, file)
    except GuestImageError as error:
        raise GuestImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise GuestImageError(f"{path}: no such file") from None
    except OSError as error:
        raise GuestImageError(f"{path}: cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    """Return a file's size before it is opened: to open a FIFO would wait for its writer."""
    try:
        status = path.stat()
    except ValueError:  # a NUL byte in the name
        raise GuestImageError("not a file name") from None
    if stat.S_ISDIR(status.st_mode):
        raise GuestImageError(f"is a directory, not a guest image, and has no {'/'.join(esp.PROGRAM)}")
    if not stat.S_ISREG(status.st_mode):
        raise GuestImageError("is not a regular file")
    if status.st_size == 0:
        raise GuestImageError("is empty")
    return status.st_size


def _not_known(head: bytes, size: int) -> str:
    floppy = media.floppy_format(size)
    return (
        "not a known kind of guest: no bzImage header at 0x202, no ELF, no multiboot header in the first 8 KiB, "
        "no ISO 9660 descriptor, no boot signature 55 AA at 510 "
        + (f"(the size is that of a {floppy} floppy; " if floppy else "(")
        + f"file starts with {_shown(head[:8])}); code without a header is run with --entry-mode 16, 32 or 64"
    )


def _shown(start: bytes) -> str:
    if all(0x20 <= byte < 0x7F for byte in start):
        return repr(start.decode("ascii"))
    return start.hex(" ")
