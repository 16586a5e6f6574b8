"""Recognise a guest by its content, never by its name."""

import stat
from pathlib import Path

from trapline.errors import GuestImageError

from .formats import bzimage, elf, foreign, media, multiboot
from .guest import Guest, GuestKind

# Enough for every header looked at: the farthest is El Torito's boot record, the descriptor in sector 17.
HEAD_SIZE = 0x9000


def recognise(path: Path) -> Guest:
    """Say what guest the file holds, or raise GuestImageError with what was looked for and what was found."""
    head, size = _read_head(path)
    try:
        kind, description = _classify(path, head, size)
    except GuestImageError as error:
        raise GuestImageError(f"{path}: {error}") from None
    except OSError as error:
        raise GuestImageError(f"{path}: cannot be read: {error.strerror}") from error
    return Guest(path, kind, description)


def raw_image(path: Path) -> Guest:
    """Take a file as it is: code without a header, whatever its bytes look like."""
    _, size = _read_head(path)
    return Guest(path, GuestKind.RAW, f"raw image of {size} bytes")


def _classify(path: Path, head: bytes, size: int) -> tuple[GuestKind, str]:
    if bzimage.present(head):
        return GuestKind.BZIMAGE, bzimage.describe(head, size)
    if elf.present(head):
        return _classify_elf(path, head, size)
    if media.iso_present(head):
        return GuestKind.ISO, media.describe_iso(head)
    if sentence := foreign.name_it(head):
        raise GuestImageError(sentence)
    # The boot signature comes before flat multiboot: GRUB's core image, in the gap behind the MBR of most
    # disks, carries a multiboot header with addresses of its own, and the disk is what the user means.
    if media.boot_signature_present(head):
        if name := media.floppy_format(size):
            return GuestKind.FLOPPY, f"{name} floppy image with a boot signature"
        return GuestKind.DISK, media.describe_disk(head, size)
    if header := multiboot.find(head):
        return GuestKind.MULTIBOOT, multiboot.describe_flat(header, size)
    raise GuestImageError(_not_known(head, size))


def _classify_elf(path: Path, head: bytes, size: int) -> tuple[GuestKind, str]:
    with path.open("rb") as file:
        image = elf.parse(file, head, size)
    header = multiboot.find(head)
    if header is not None:
        return GuestKind.MULTIBOOT, multiboot.describe_elf(header, image)
    if image.pvh_entry is not None:
        return GuestKind.PVH, f"{image.name} with a PVH note, entry at {image.pvh_entry:#x}"
    if multiboot.multiboot2_present(head):
        raise GuestImageError(
            f"{image.name} with a multiboot 2 header only: QEMU's -kernel takes multiboot 1 or a PVH note; "
            "add one of them, or boot it by GRUB from an ISO image (grub-mkrescue)"
        )
    if image.needs_loader:
        raise GuestImageError(f"{image.name} that names a dynamic loader: a program for an operating system")
    return GuestKind.ELF, f"{image.name}, entry at {image.entry:#x}"


def _read_head(path: Path) -> tuple[bytes, int]:
    # stat first: to open a FIFO would wait for its writer.
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise GuestImageError(f"{path}: is a directory, not a guest image")
        if not stat.S_ISREG(status.st_mode):
            raise GuestImageError(f"{path}: is not a regular file")
        if status.st_size == 0:
            raise GuestImageError(f"{path}: is empty")
        with path.open("rb") as file:
            return file.read(HEAD_SIZE), status.st_size
    except FileNotFoundError:
        raise GuestImageError(f"{path}: no such file") from None
    except OSError as error:
        raise GuestImageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:  # a NUL byte in the name
        raise GuestImageError(f"{str(path)!r}: not a file name") from None


def _not_known(head: bytes, size: int) -> str:
    floppy = media.floppy_format(size)
    return (
        "not a guest I know: no bzImage header at 0x202, no ELF, no multiboot header in the first 8 KiB, "
        "no ISO 9660 descriptor, no boot signature 55 AA at 510 "
        + (f"(the size is that of a {floppy} floppy; " if floppy else "(")
        + f"file starts with {_shown(head[:8])})"
    )


def _shown(start: bytes) -> str:
    if all(0x20 <= byte < 0x7F for byte in start):
        return repr(start.decode("ascii"))
    return start.hex(" ")
