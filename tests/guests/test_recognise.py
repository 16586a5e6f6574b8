from __future__ import annotations

import io
import os
import stat
import struct
import uuid
from pathlib import Path

import pytest

from trapline.errors import GuestImageError, UsageError
from trapline.guests.formats.fat import has_efi_directory, volume
from trapline.guests.guest import Guest, GuestKind
from trapline.guests.recognise import raw_image, recognise

NOBODY = 65534


def refused(path):
    with pytest.raises(GuestImageError) as caught:
        recognise(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def known(path, kind):
    guest = recognise(path)
    assert (guest.path, guest.kind) == (path, kind)
    assert "\n" not in guest.description
    return guest.description


def test_a_bzimage_is_known_with_its_protocol_and_kernel(file, build):
    assert known(file(build.bzimage()), GuestKind.BZIMAGE) == "bzImage, boot protocol 2.15, 6.1.0-test"


def test_a_bzimage_that_is_an_efi_program_too_is_a_bzimage(file, build):
    assert known(file(b"MZ" + build.bzimage()[2:]), GuestKind.BZIMAGE)


def test_a_kernel_version_of_several_words_is_kept(file, build):
    assert known(file(build.bzimage(kernel=b"Memtest86+ v6.10")), GuestKind.BZIMAGE).endswith("Memtest86+ v6.10")


def test_a_bzimage_without_version_or_loaded_low_is_known(file, build):
    description = known(file(build.bzimage(kernel=b"", loadflags=0)), GuestKind.BZIMAGE)
    assert description == "zImage (loaded low), boot protocol 2.15"


def test_a_file_short_by_less_than_a_paragraph_is_whole(file, build):
    assert known(file(build.bzimage()[:-15]), GuestKind.BZIMAGE)


@pytest.mark.parametrize("length", [0x206, 0x213, 600, 2048, -16])
def test_a_bzimage_cut_short_is_refused(file, build, length):
    assert refused(file(build.bzimage()[:length])).startswith("bzImage cut short")


def test_a_bzimage_of_protocol_1_is_refused(file, build):
    assert "2.00 or later" in refused(file(build.bzimage(version=0x105)))


@pytest.mark.parametrize("offset", [0, 4, 8000])
def test_a_32_bit_elf_with_multiboot_is_known(file, build, offset):
    content = bytes(offset) + build.multiboot_header()
    assert known(file(build.elf(content=content)), GuestKind.MULTIBOOT) == "multiboot kernel, 32-bit ELF for i386"


@pytest.mark.parametrize(("bits", "machine"), [(64, 62), (32, 62), (64, 3)])
def test_a_64_bit_elf_with_multiboot_is_refused_with_the_cure(file, build, bits, machine):
    message = refused(file(build.elf(bits, machine, build.multiboot_header(), build.note())))
    assert "takes only 32-bit ELF images" in message
    assert "objcopy -O elf32-i386" in message


def test_a_64_bit_elf_with_address_fields_is_known(file, build):
    header = build.multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020)
    assert "loaded by the header's addresses" in known(file(build.elf(64, content=header)), GuestKind.MULTIBOOT)


def test_a_multiboot_header_with_a_wrong_checksum_or_too_far_is_none(file, build):
    header = bytearray(build.multiboot_header())
    header[8] ^= 1
    for content in (bytes(header), b"\0\0" + build.multiboot_header()):
        assert known(file(build.elf(content=content)), GuestKind.ELF) == "32-bit ELF for i386, entry at 0x100000"


def test_a_multiboot_header_beyond_8_kib_is_refused(file, build):
    content = bytes(8192) + build.multiboot_header()
    for image in (build.elf(content=content), content):
        assert "where no loader looks for it: put its section first" in refused(file(image))


def test_a_kernel_of_limine_is_refused(file, build):
    magic = struct.pack("<2Q", 0xC7B1DD30DF4C8B88, 0x0A82E883A194F07B)
    assert "Limine" in refused(file(build.elf(64, content=magic)))


def test_a_floppy_is_known_by_its_boot_sector(file, build):
    image = bytearray(build.disk(0x4000))
    struct.pack_into("<H6xHB", image, 0x0B, 512, 2880, 0xF0)
    assert "by its boot sector's media byte 0xf0" in known(file(bytes(image)), GuestKind.FLOPPY)
    image[0x15] = 0xF8
    assert known(file(bytes(image)), GuestKind.DISK)
    assert known(file(build.disk(1474560, [(0x80, 0x83, 1, 2)])), GuestKind.DISK)


@pytest.mark.parametrize("kind", [GuestKind.FLOPPY, GuestKind.DISK, GuestKind.ISO])
def test_a_medium_that_the_user_names(file, build, kind):
    for image, form in ((build.disk(1474560), "raw"), (bytes(100), "raw"), (qcow2(), "qcow2")):
        guest = recognise(file(image), kind)
        assert (guest.kind, guest.format) == (kind, form)
    for image in (build.elf(), build.bzimage()):
        with pytest.raises(GuestImageError, match="--media is for images that a BIOS boots"):
            recognise(file(image), kind)


def qcow2(backing=0, version=3, features=0):
    return struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, 1 << 20).ljust(72, b"\0") + struct.pack(
        ">Q", features
    )


def test_a_qcow2_image_is_a_disk_unless_it_names_other_files(file):
    assert known(file(qcow2()), GuestKind.DISK) == "qcow2 disk image of 1 MiB"
    assert known(file(qcow2(version=2, features=4)), GuestKind.DISK)
    for image in (qcow2(backing=512), qcow2(features=4)):
        assert "names another file" in refused(file(image))


def test_a_flat_multiboot_image_is_known(file, build):
    header = build.multiboot_header(0x10000, 0x100010, 0x100000, 0, 0, 0x100040)
    description = known(file(bytes(16) + header + bytes(64)), GuestKind.MULTIBOOT)
    assert description == "multiboot kernel, flat image of 112 bytes, entry at 0x100040"


def test_a_flat_multiboot_image_needs_addresses_that_fit(file, build):
    assert "without address fields" in refused(file(build.multiboot_header() + bytes(64)))
    header = build.multiboot_header(0x10000, 0x200000, 0x100000, 0, 0, 0x100040)
    assert "do not fit the file" in refused(file(header + bytes(64)))
    assert "cut short" in refused(file(header[:20]))


def test_a_multiboot_header_with_unknown_needs_is_refused(file, build):
    assert "flags 0x00000100" in refused(file(build.elf(content=build.multiboot_header(0x100))))


@pytest.mark.parametrize("bits", [32, 64])
def test_an_elf_with_a_pvh_note_is_known(file, build, bits):
    notes = build.note(3, b"abc", b"GNU\0") + build.note()
    description = known(file(build.elf(bits, notes=notes)), GuestKind.PVH)
    assert description.startswith(f"{bits}-bit ELF")
    assert description.endswith("with a PVH note, entry at 0x1000200")


@pytest.mark.parametrize("notes", [{"name": b"GNU\0"}, {"kind": 3}, {"descriptor": b"ab"}])
def test_another_note_is_no_pvh_note(file, build, notes):
    description = known(file(build.elf(64, notes=build.note(**notes))), GuestKind.ELF)
    assert description == "64-bit ELF for x86-64, entry at 0x100000"


def test_the_entry_of_an_elf_file_is_where_its_segment_is_loaded(file, build):
    image = build.elf(64, content=bytes(16), virtual=0xFFFF_8000_0010_0000, entry=0xFFFF_8000_0010_0004)
    assert known(file(image), GuestKind.ELF).endswith("entry at 0x100004")


def test_a_program_of_an_operating_system_is_refused(file, build):
    message = refused(file(build.elf(64, notes=b"/lib/ld.so\0", noted=3)))
    assert "names a dynamic loader" in message


def test_a_multiboot_2_header_alone_is_named(file, build):
    words = (0xE85250D6, 0, 16, -(0xE85250D6 + 16) & 0xFFFFFFFF)
    assert "multiboot 2 header only" in refused(file(build.elf(64, content=struct.pack("<4I", *words))))


@pytest.mark.parametrize("bits", [32, 64])
def test_an_elf_cut_short_anywhere_is_refused(file, build, bits):
    whole = build.elf(bits, content=bytes(100) + build.multiboot_header(), notes=build.note())
    for length in range(4, len(whole)):
        assert "cut short" in refused(file(whole[:length]))


def test_an_elf_that_no_pc_boots_is_named(file, build):
    assert "ELF file for AArch64" in refused(file(build.elf(64, 183)))
    assert "machine 4711" in refused(file(build.elf(64, 4711)))
    assert "relocatable object" in refused(file(build.elf(64, kind=1)))
    big_endian = bytearray(build.elf(32))
    big_endian[5] = 2
    assert "big-endian" in refused(file(bytes(big_endian)))
    unclassed = bytearray(build.elf(32))
    unclassed[4] = 7
    assert "unknown class 7" in refused(file(bytes(unclassed)))
    no_segments = bytearray(build.elf(32))
    no_segments[44:46] = b"\0\0"
    assert "without program headers" in refused(file(bytes(no_segments)))
    odd = bytearray(build.elf(32))
    odd[42:44] = b"\x05\0"
    assert "damaged" in refused(file(bytes(odd)))


def test_an_iso_image_says_whether_it_boots(file, build):
    assert known(file(build.iso()), GuestKind.ISO) == "ISO 9660 image 'TRAPLINE', bootable (El Torito)"
    assert "not bootable" in known(file(build.iso(el_torito=False)), GuestKind.ISO)


def test_a_hybrid_iso_is_an_iso(file, build):
    assert known(file(build.iso(hybrid=True)), GuestKind.ISO)


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ({"size": 512}, "boot sector (512 bytes)"),
        ({}, "raw disk of 1 MiB with a boot sector, no partitions"),
        ({"size": 1000}, "raw disk of 1000 bytes with a boot sector, no partitions"),
        ({"partitions": [(0x80, 0x83, 2048, 4096)]}, "raw disk of 1 MiB with an MBR, 1 partition"),
        (
            {"partitions": [(0x80, 0x83, 1, 2), (0, 0x0C, 3, 4)]},
            "raw disk of 1 MiB with an MBR, 2 partitions",
        ),
        ({"partitions": [(0x42, 0x83, 1, 2)]}, "raw disk of 1 MiB with a boot sector, no partitions"),
        ({"partitions": [(0, 0xEE, 1, 2047)], "gpt": True}, "raw disk of 1 MiB with a GPT"),
        ({"partitions": [(0, 0xEE, 1, 2047)]}, "raw disk of 1 MiB with a protective MBR but no GPT header"),
    ],
)
def test_a_disk_is_known(file, build, disk, words):
    assert known(file(build.disk(**disk)), GuestKind.DISK) == f"{words} (--media floppy: a floppy)"


@pytest.mark.parametrize(("size", "name"), [(1474560, "1.44 MB"), (737280, "720 KB"), (1228800, "1.2 MB")])
def test_a_floppy_is_known_by_its_exact_size(file, build, size, name):
    assert (
        known(file(build.disk(size)), GuestKind.FLOPPY)
        == f"{name} floppy image, by its size (--media disk: a hard disk)"
    )
    assert known(file(build.disk(size + 512)), GuestKind.DISK)
    assert f"the size is that of a {name} floppy" in refused(file(bytes(size)))


def test_a_disk_with_grubs_core_image_is_a_disk(file, build):
    # The core image behind the MBR has a multiboot header with addresses.
    image = bytearray(build.disk())
    header = build.multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020)
    image[1024 : 1024 + len(header)] = header
    assert known(file(bytes(image)), GuestKind.DISK)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"KDMV", "qemu-img convert -O raw"),
        (b"QFI\xfb", "cut short"),
        (b"070701", "--initrd"),
        (bytes(257) + b"ustar", "tar archive"),
    ],
)
def test_a_file_that_is_no_guest_yet_is_named_with_the_cure(file, content, words):
    assert words in refused(file(content + bytes(50)))


def test_an_efi_program_is_known(file, build):
    guest = recognise(file(build.efi_program()))
    assert (guest.kind, guest.uefi, guest.content) == (GuestKind.EFI, True, build.efi_program())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"subsystem": 3}, "Windows program (PE)"),
        ({"subsystem": 11}, "EFI boot driver: the guest's firmware starts programs only"),
        ({"machine": 0xAA64}, "EFI program for AArch64: "),
        ({"machine": 1}, "EFI program for machine 0x1: "),
    ],
)
def test_other_portable_executables_are_named(file, build, fields, words):
    assert refused(file(build.efi_program(**fields))).startswith(words)


SYSTEM_PARTITION = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


def gpt(kind=SYSTEM_PARTITION, code=b""):
    image = bytearray(1 << 20)
    image[: len(code)] = code
    image[446:462] = bytes((0, 0, 2, 0, 0xEE, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0))
    image[510:512] = b"\x55\xaa"
    image[512:520] = b"EFI PART"
    image[512 + 72 : 512 + 88] = struct.pack("<QII", 2, 128, 128)
    image[1024 + 128 : 1024 + 144] = kind.bytes_le
    return bytes(image)


def mbr(kind, code=b""):
    image = bytearray(code.ljust(1 << 20, b"\0"))
    image[446:462] = bytes((0, 0, 2, 0, kind, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0))
    image[510:512] = b"\x55\xaa"
    return bytes(image)


def formatted(text, name="EFI"):
    """A FAT volume as mkfs.fat leaves it, with a directory."""
    image = bytearray(volume((name, "X"), b""))
    image[62 : 62 + len(text)] = text
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "needed"),
    [
        (gpt(), True),
        (gpt(code=b"\xeb\x63"), False),
        (gpt(kind=uuid.UUID(int=1)), False),
        (mbr(0xEF), True),
        (mbr(0x83), False),
        (mbr(0xEF, b"\xfa\x33\xc0"), False),
        (formatted(b"This is not a bootable disk."), True),
        (formatted(b""), True),
        (formatted(b"\xfa\x33\xc0 my loader"), False),
        (formatted(b"This is not a bootable disk.", name="GAMES"), False),
    ],
)
def test_a_disk_without_boot_code_is_for_uefi_where_it_has_a_system_partition(file, image, needed):
    guest = recognise(file(image))
    assert guest.uefi is needed
    assert ("which UEFI firmware boots" in guest.description) is needed


def test_fat32_has_its_root_in_a_cluster():
    image = bytearray(1 << 20)
    struct.pack_into("<HBHB", image, 11, 512, 2, 32, 2)
    struct.pack_into("<I", image, 36, 8)
    struct.pack_into("<I", image, 44, 5)
    at = (32 + 2 * 8 + 3 * 2) * 512 + 64
    image[at : at + 12] = b"EFI        \x10"
    assert has_efi_directory(bytes(image[:512]), lambda offset, size: bytes(image[offset : offset + size]))


@pytest.mark.parametrize(
    ("platforms", "needed"), [((0xEF,), True), ((0, 0xEF), False), ((0,), False), ((), False), ((None, 0xEF), True)]
)
def test_an_iso_image_is_for_uefi_where_no_bios_boots_it(file, build, platforms, needed):
    image = bytearray(build.iso().ljust(21 * 2048, b"\0"))
    struct.pack_into("<I", image, 0x8847, 20)
    catalog = 20 * 2048
    if platforms:
        image[catalog], image[catalog + 1] = 1, platforms[0] or 0
        image[catalog + 32] = 0 if platforms[0] is None else 0x88
    for number, platform in enumerate(platforms[1:], 2):
        image[catalog + 32 * number : catalog + 32 * number + 2] = bytes((0x91, platform))
    assert recognise(file(bytes(image))).uefi is needed


def test_a_folder_is_a_guest_where_firmware_finds_a_program(tmp_path):
    assert refused(tmp_path) == "is a directory, not a guest image, and has no EFI/BOOT/BOOTX64.EFI"
    (tmp_path / "efi" / "Boot").mkdir(parents=True)
    assert refused(tmp_path).startswith("is a directory")
    (tmp_path / "efi" / "Boot" / "bootx64.efi").write_bytes(b"MZ")
    guest = recognise(tmp_path)
    assert (guest.kind, guest.uefi) == (GuestKind.FOLDER, True)


def test_a_file_that_nobody_knows_is_refused_with_what_was_looked_for(file):
    assert refused(file(b"hello world\n", "KERNEL.txt")) == (
        "not a known kind of guest: no bzImage header at 0x202, no ELF, no multiboot header in the first 8 KiB, "
        "no ISO 9660 descriptor, no boot signature 55 AA at 510 (file starts with 'hello wo'); "
        "code without a header is run with --entry-mode 16, 32 or 64"
    )
    assert "(file starts with 00 01 02)" in refused(file(b"\0\1\2"))


def test_empty_missing_and_odd_files_are_refused(file, tmp_path):
    assert refused(file(b"")) == "is empty"
    assert refused(tmp_path / "absent") == "no such file"
    assert "cannot be read" in refused(file(b"x") / "below")
    os.mkfifo(tmp_path / "fifo")
    assert refused(tmp_path / "fifo") == "is not a regular file"
    with pytest.raises(GuestImageError, match="not a file name"):
        recognise(tmp_path / "a\0b")


def test_an_unreadable_file_is_refused(file):
    path = file(b"x")
    path.chmod(stat.S_IWUSR)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root reads every file
    try:
        assert refused(path) == "cannot be read: Permission denied"
    finally:
        os.seteuid(user)


def test_a_file_that_fails_while_it_is_read_is_refused(file, build, monkeypatch):
    path = file(build.elf())

    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(build.elf()))
    assert refused(path) == "cannot be read: Input/output error"


def test_a_guest_is_a_value(file, build):
    path = file(build.disk(512))
    assert recognise(path) == Guest(
        path, GuestKind.DISK, "boot sector (512 bytes) (--media floppy: a floppy)", build.disk(512)
    )
    assert issubclass(GuestImageError, UsageError)


def test_what_is_loaded_is_read_whole(file, build):
    content = build.elf(64, content=bytes(1 << 16), notes=build.note())
    guest = recognise(file(content))
    assert guest.content == content
    assert guest.image.pvh_entry == 0x1000200
    flat = build.multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020) + bytes(1 << 16)
    guest = recognise(file(flat))
    assert (guest.content, guest.image, guest.header.entry) == (flat, None, 0x100020)


@pytest.mark.parametrize("name", ["bzimage", "iso", "disk"])
def test_of_what_only_qemu_loads_the_head_is_read(file, build, name):
    image = {"bzimage": build.bzimage(paragraphs=1 << 16), "iso": build.iso(), "disk": build.disk(1 << 20)}[name]
    guest = recognise(file(image))
    assert image.startswith(guest.content)
    assert len(guest.content) < len(image)


@pytest.mark.parametrize("size", [600 << 20, 40 << 30])
def test_of_a_sparse_file_no_more_is_read_than_is_loaded(tmp_path, build, size):
    path = tmp_path / "huge"
    path.write_bytes(build.elf(content=bytes(100)))
    os.truncate(path, size)
    assert len(recognise(path).content) < 1 << 16
    told = f"{size} bytes to load: more than 512 MiB are not read"
    with pytest.raises(GuestImageError, match=told):
        raw_image(path)
    path.write_bytes(build.multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020))
    os.truncate(path, size)
    assert refused(path) == told
    path.write_bytes(elf_of(0x1000, 0, size - 0x1000))
    os.truncate(path, size)
    assert refused(path) == told


def test_program_headers_may_be_anywhere(tmp_path):
    path = tmp_path / "late"
    path.write_bytes(elf_of(0x100000, 0x100000, 16, table=0x80000))
    assert known(path, GuestKind.ELF) == "64-bit ELF for x86-64, entry at 0x100000"
    assert len(recognise(path).content) == 0x100010


def elf_of(offset, gpa, size, table=64):
    """Return an ELF file of one segment."""
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, gpa, table, 0, 0, 64, 56, 1, 0, 0, 0)
    entry = struct.pack("<IIQQQQQQ", 1, 5, offset, gpa, gpa, size, size, 4)
    start = b"\x7fELF\x02\x01\x01" + bytes(9) + header
    return (start.ljust(table, b"\0") + entry).ljust(min(offset + size, 1 << 21), b"\0")
