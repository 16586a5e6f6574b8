from __future__ import annotations

from pathlib import Path

import pytest

from trapline.errors import UsageError
from trapline.guests.boot import bare_entry
from trapline.guests.formats.fat import has_efi_directory
from trapline.guests.guest import Guest, GuestKind
from trapline.guests.qemu import in_file, qemu_options
from trapline.guests.recognise import recognise

KERNELS = [GuestKind.BZIMAGE, GuestKind.MULTIBOOT, GuestKind.PVH]
MEDIA = [GuestKind.ISO, GuestKind.DISK, GuestKind.FLOPPY]


def guest(kind, path="/images/guest"):
    return Guest(Path(path), kind, "", b"")


@pytest.mark.parametrize("kind", KERNELS)
def test_a_kernel_takes_initrd_and_command_line(kind, file):
    initrd = file(b"", "initrd")
    assert qemu_options(guest(kind), initrd=initrd, append="console=ttyS0") == [
        *("-kernel", "/images/guest", "-initrd", str(initrd), "-append", "console=ttyS0")
    ]
    assert qemu_options(guest(kind)) == ["-kernel", "/images/guest"]


def test_an_empty_command_line_is_passed_on():
    assert qemu_options(guest(GuestKind.BZIMAGE), append="")[-2:] == ["-append", ""]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GuestKind.DISK, ["-drive", "file=/a,,b.img,format=raw,if=ide", "-boot", "order=c"]),
        (GuestKind.FLOPPY, ["-drive", "file=/a,,b.img,format=raw,if=floppy", "-boot", "order=a"]),
        (GuestKind.ISO, ["-cdrom", "/a,b.img", "-boot", "order=d"]),
        (GuestKind.BZIMAGE, ["-kernel", "/a,b.img"]),
    ],
)
def test_a_comma_is_doubled_only_where_qemu_splits_at_it(kind, options):
    assert qemu_options(guest(kind, "/a,b.img")) == options


def test_a_folder_is_a_disk_that_is_not_written_to():
    folder = Guest(Path("/a,b"), GuestKind.FOLDER, "", b"", uefi=True)
    assert qemu_options(folder, uefi=True)[1] == "file.driver=vvfat,file.dir=/a,,b,format=raw,snapshot=on,if=ide"


def test_an_efi_program_is_where_firmware_looks_on_a_disk():
    program = bytes(range(256)) * 5000
    with in_file(Guest(Path("/x.efi"), GuestKind.EFI, "", program, uefi=True)) as guest:
        image = guest.path.read_bytes()
        assert qemu_options(guest, uefi=True)[1] == f"file={guest.path},format=raw,if=ide"
    assert has_efi_directory(image, lambda offset, size: image[offset : offset + size])
    assert program in image


def test_uefi_firmware_boots_no_multiboot_kernel_and_no_floppy_drive():
    with pytest.raises(UsageError, match="--uefi cannot be used for a multiboot kernel"):
        qemu_options(guest(GuestKind.MULTIBOOT), uefi=True)
    assert qemu_options(guest(GuestKind.FLOPPY), uefi=True)[1].endswith("if=ide")
    assert qemu_options(guest(GuestKind.BZIMAGE), uefi=True)[0] == "-kernel"


@pytest.mark.parametrize("kind", [GuestKind.EFI, GuestKind.FOLDER])
def test_an_efi_program_gets_no_command_line(kind):
    with pytest.raises(UsageError, match=f"--append is for kernels, but /images/guest is an {kind.value}: "):
        qemu_options(guest(kind), append="x", uefi=True)


def test_a_disk_is_opened_in_its_format():
    disk = Guest(Path("/a.qcow2"), GuestKind.DISK, "", b"", format="qcow2")
    assert qemu_options(disk)[1] == "file=/a.qcow2,format=qcow2,if=ide"


@pytest.mark.parametrize("kind", KERNELS)
def test_a_comma_in_an_initrds_name_is_doubled_for_multiboot_alone(kind, file):
    initrd = file(b"", "a,b")
    expected = str(initrd).replace(",", ",,") if kind is GuestKind.MULTIBOOT else str(initrd)
    assert qemu_options(guest(kind), initrd=initrd)[-1] == expected


def test_a_name_is_made_absolute_so_that_qemu_sees_no_protocol():
    assert qemu_options(guest(GuestKind.ISO, "nbd:x"))[1] == str(Path.cwd() / "nbd:x")


@pytest.mark.parametrize("kind", MEDIA)
def test_media_take_neither_initrd_nor_command_line(kind):
    with pytest.raises(UsageError, match=f"--initrd is for kernels, but /images/guest is a {kind.value} image"):
        qemu_options(guest(kind), initrd=Path("initrd"))
    with pytest.raises(UsageError, match="--append is for kernels"):
        qemu_options(guest(kind), append="")


def test_an_initrd_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        qemu_options(guest(GuestKind.BZIMAGE), initrd=tmp_path / "absent")
    with pytest.raises(UsageError, match="not a file"):
        qemu_options(guest(GuestKind.BZIMAGE), initrd=tmp_path)


def test_a_multiboot_module_with_a_space_is_refused(file):
    with pytest.raises(UsageError, match="has a space"):
        qemu_options(guest(GuestKind.MULTIBOOT), initrd=file(b"", "a b"))


@pytest.mark.parametrize("kind", [GuestKind.ELF, GuestKind.RAW])
def test_what_only_a_bare_machine_enters_is_refused(kind):
    with pytest.raises(UsageError, match=r"/images/guest.*QEMU's PC boots no") as caught:
        qemu_options(guest(kind))
    assert "\n" not in str(caught.value)


def test_a_flat_multiboot_header_out_of_the_file_is_refused_in_elf_files_too(file, build):
    header = build.multiboot_header(0x10000, 0x20_0000, 0x10_0000, 0, 0, 0x20_0020)
    with pytest.raises(UsageError, match="addresses that do not fit the file"):
        bare_entry(recognise(file(build.elf(content=header))), memory=1 << 24)
