"""What a guest finds when it enters a bare machine, by each protocol."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.growth import growth
from trapline.arch import address_space, paging
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS, Gprs
from trapline.arch.reset import reset
from trapline.arch.vmcb import Vmcb
from trapline.errors import GuestImageError, UsageError
from trapline.guests.boot import Entry, NeedsPc, bare_entry
from trapline.guests.boot.executable import executable
from trapline.guests.boot.ram import Ram
from trapline.guests.formats import elf
from trapline.guests.guest import Guest, GuestKind
from trapline.guests.recognise import raw_image, recognise
from trapline.machine.boot import Boot
from trapline.machine.scripted import ScriptedMemory

MEMORY = 16 << 20
CODE32, CODE64, DATA = 0xC9B, 0xA9B, 0xC93
CODE = bytes(range(1, 200))


class Machine:
    """RAM full of ones and a vCPU after RESET, with what a boot wrote over them."""

    def __init__(self, boot):
        self.boot = boot
        self.memory = ScriptedMemory(MEMORY)
        self.memory.write(0, b"\xff" * MEMORY)
        for gpa, data in boot.loads:
            self.memory.write(gpa, data)
        vmcb, self.gprs = Vmcb.from_buffer(bytearray(0x1000)), Gprs()
        reset(vmcb, self.gprs, signature=0x800F12)
        self.save = vmcb.save
        boot.enter(self.save, self.gprs)

    def words(self, gpa, form):
        return struct.unpack(form, self.memory.read(gpa, struct.calcsize(form)))

    def text(self, gpa):
        return self.memory.read(gpa, 256).split(b"\0")[0].decode()


@pytest.fixture
def enter(file):
    """Boot an image by bare_entry and return the machine."""

    def enter(image, entry=Entry(), **options):  # noqa: B008  # immutable
        path = file(image)
        guest = raw_image(path) if entry.mode else recognise(path)
        boot = bare_entry(guest, memory=MEMORY, entry=entry, **options)
        assert isinstance(boot, Boot), boot
        assert "\n" not in boot.description
        return Machine(boot)

    return enter


@pytest.fixture
def refused(file):
    """Return the line that refuses an image."""

    def refused(image, entry=Entry(), memory=MEMORY, **options):  # noqa: B008  # immutable
        path = file(image)
        guest = raw_image(path) if entry.mode else recognise(path)
        with pytest.raises(GuestImageError) as caught:
            bare_entry(guest, memory=memory, entry=entry, **options)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


def flat(machine, code):
    """Check flat segments that match the GDT, and interrupts off."""
    save = machine.save
    assert (save.cs.selector, save.cs.attributes, save.cs.base, save.cs.limit) == (0x08, code, 0, 0xFFFF_FFFF)
    for segment in (save.ds, save.es, save.fs, save.gs, save.ss):
        assert (segment.selector, segment.attributes, segment.base, segment.limit) == (0x10, DATA, 0, 0xFFFF_FFFF)
    descriptors = machine.words(save.gdtr.base, "<3Q")
    assert save.gdtr.limit == 23
    assert descriptors[0] == 0
    for descriptor, attributes in zip(descriptors[1:], (code, DATA), strict=True):
        assert descriptor >> 40 & 0xFF | descriptor >> 44 & 0xF00 == attributes
        assert descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000 == 0xF_FFFF
    assert save.idtr.limit == 0
    assert save.rflags == RFLAGS.ALWAYS_ONE
    assert save.cpl == 0
    assert save.efer & EFER.SVME
    machine.memory.write(save.rsp - 0x4000, bytes(0x4000))  # a stack, and nothing that was loaded lies in it
    for gpa, data in machine.boot.loads:
        assert gpa >= save.rsp or gpa + len(data) <= save.rsp - 0x4000 or not any(data)


def protected(machine):
    flat(machine, CODE32)
    assert machine.save.cr0 == CR0.PE | CR0.ET
    assert machine.save.cr4 == 0
    assert not machine.save.efer & EFER.LME


# ---- raw


def test_a_raw_image_in_real_mode(enter):
    machine = enter(CODE, Entry(16))
    save = machine.save
    assert machine.memory.read(0x7C00, len(CODE)) == CODE
    assert (save.cs.selector, save.cs.base, save.rip, save.rsp) == (0, 0, 0x7C00, 0x7C00)
    assert (save.cs.attributes, save.cs.limit, save.cr0) == (0x9B, 0xFFFF, CR0.ET)
    assert (save.idtr.base, save.idtr.limit, save.rflags, machine.gprs.rdx) == (0, 0x3FF, 2, 0)


def test_real_mode_reaches_a_high_image_by_its_segment(enter):
    save = enter(CODE, Entry(16, 0x1_2345)).save
    assert (save.cs.selector, save.cs.base, save.rip, save.rsp) == (0x1234, 0x12340, 5, 0xFFFE)


def test_a_raw_image_in_32_bit_code(enter):
    machine = enter(CODE, Entry(32))
    protected(machine)
    assert machine.memory.read(0x10_0000, len(CODE)) == CODE
    assert (machine.save.rip, machine.save.rsp) == (0x10_0000, 0x5000)


def test_a_raw_image_in_64_bit_code(enter):
    machine = enter(CODE, Entry(64, 0x20_0010))
    long_mode(machine)
    assert machine.save.rip == 0x20_0010


def long_mode(machine):
    flat(machine, CODE64)
    save = machine.save
    assert save.cr0 == CR0.PG | CR0.PE | CR0.ET | CR0.NE | CR0.WP
    assert (save.cr4, save.efer) == (CR4.PAE, EFER.SVME | EFER.LME | EFER.LMA)
    for gva in (0, 0x1234, 0x20_0000, 0x3FFF_FFFF, 0x4000_0000, 0xC123_4567, 0xFFFF_FFFF):
        assert address_space.walk(machine.memory.read, save.cr0, save.cr3, save.cr4, save.efer, gva) == gva
    with pytest.raises(paging.NotMapped):
        address_space.walk(machine.memory.read, save.cr0, save.cr3, save.cr4, save.efer, 1 << 32)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry(16, 0x10_0000), "real mode reaches no entry at 0x100000"),
        (Entry(32, MEMORY - 10), "beyond the RAM, which ends at 0x1000000"),
        (Entry(17), "there is no 17-bit code"),
    ],
)
def test_a_raw_image_where_it_cannot_be(refused, entry, words):
    assert words in refused(CODE, entry)


def test_an_image_that_fills_low_memory_leaves_no_room_for_a_stack(refused):
    assert "leaves no room below 0x9fc00" in refused(bytes(0x9_F000), Entry(32, 0x800))


def test_a_file_larger_than_the_ram(refused):
    assert "beyond the RAM" in refused(bytes(5 << 20), Entry(32), memory=4 << 20)


def test_a_raw_image_needs_a_mode(file):
    with pytest.raises(GuestImageError, match="--entry-mode 16, 32 or 64"):
        bare_entry(raw_image(file(CODE)), memory=MEMORY)


def test_a_load_address_is_for_raw_images(file, build):
    with pytest.raises(UsageError, match="--load-address is for raw images"):
        bare_entry(recognise(file(build.elf(64, content=CODE))), memory=MEMORY, entry=Entry(address=0x1000))


def test_a_mode_makes_a_raw_image_of_anything(enter, build):
    image = build.bzimage()
    assert enter(image, Entry(32)).memory.read(0x10_0000, len(image)) == image


# ---- boot sectors


HANDLERS = {
    **dict.fromkeys(range(256), b""),
    **dict.fromkeys(range(0x08, 0x10), b"\x50\xb0\x20\xe6\x20\x58"),
    **dict.fromkeys(range(0x70, 0x78), b"\x50\xb0\x20\xe6\xa0\xe6\x20\x58"),
}
"""By vector, what comes before the IRET: the end of an interrupt at one 8259, at both, or nothing."""


@pytest.mark.parametrize(("size", "drive"), [(512, 0x80), (1 << 20, 0x80), (1474560, 0x00)])
def test_a_boot_sector(enter, build, size, drive):
    machine = enter(build.disk(size), Entry(boot_sector=True))
    save = machine.save
    assert machine.memory.read(0x7C00, 0x201) == build.disk(512) + b"\xff"
    assert (save.cs.base + save.rip, save.rsp, machine.gprs.rdx) == (0x7C00, 0x7C00, drive)
    assert (save.rflags, save.idtr.limit) == (RFLAGS.IF | 2, 0x3FF)
    for vector, (offset, segment) in enumerate(struct.iter_unpack("<HH", machine.memory.read(0, 0x400))):
        assert machine.memory.read(segment * 16 + offset, 9).split(b"\xcf")[0] == HANDLERS[vector]
    assert "no BIOS" in machine.boot.description


@pytest.mark.parametrize("kind", ["multiboot", "boot sector"])
def test_the_bios_data_area(enter, build, kind):
    image = build.disk() if kind == "boot sector" else build.elf(content=build.multiboot_header(), entry=0x100000)
    machine = enter(image, Entry(boot_sector=kind == "boot sector"))
    assert machine.words(0x400, "<H") == (0x3F8,)
    (segment,), (size,) = machine.words(0x40E, "<H"), machine.words(0x413, "<H")
    assert (segment << 4, size << 10) == (0x9_FC00, 0x9_FC00)
    assert machine.memory.read(segment << 4, 1) == b"\x01"


def test_a_guest_keeps_what_it_has_in_the_bios_data_area(enter, build):
    header = build.multiboot_header(0x10000, 0x410, 0x410, 0, 0, 0x430)
    assert enter(header + CODE).memory.read(0x410, 16) == header[:16]


def test_a_build_id_beyond_the_ram_is_left_out():
    parts = [(elf.PT_LOAD, 0, 0x10_0000, 16), (elf.PT_LOAD, 16, MEMORY, 8), (elf.PT_NOTE, 16, MEMORY, 8)]
    segments = tuple(elf.Segment(kind, offset, gpa, gpa, size, size, 4) for kind, offset, gpa, size in parts)
    image = elf.ElfImage(32, elf.EM_386, None, 0x10_0000, segments)
    assert executable(image, CODE, Ram(MEMORY)).loads[0] == (0x10_0000, CODE[:16])
    with pytest.raises(GuestImageError, match="beyond the RAM"):
        executable(image._replace(segments=segments[:2]), CODE, Ram(MEMORY))


@pytest.mark.parametrize(("bits", "gpa"), [(32, 0xC010_0000), (64, 0xFFFF_FFFF_8000_0000)])
def test_a_kernel_of_the_higher_half_is_refused(refused, build, bits, gpa):
    image = build.elf(bits, content=CODE, entry=gpa, virtual=gpa, gpa=gpa)
    assert "of the higher half" in refused(image)


@pytest.mark.parametrize("name", ["bzimage", "iso", "disk", "floppy"])
def test_what_needs_a_pc_says_why(file, build, name):
    image = {"bzimage": build.bzimage, "iso": build.iso, "disk": build.disk, "floppy": lambda: build.disk(1474560)}
    guest = recognise(file(image[name]()))
    refusal = bare_entry(guest, memory=MEMORY)
    assert isinstance(refusal, NeedsPc)
    assert "needs a PC" in refusal.reason
    sector = bare_entry(guest, memory=MEMORY, entry=Entry(boot_sector=True))
    assert isinstance(sector, Boot) == (name in ("disk", "floppy"))


# ---- ELF


def test_a_64_bit_elf_file_is_entered_in_long_mode(enter, build):
    image = build.elf(64, content=CODE, more=0x2345, virtual=0xFFFF_8000_0010_0000, entry=0xFFFF_8000_0010_0004)
    machine = enter(image)
    long_mode(machine)
    assert machine.save.rip == 0x10_0004
    assert machine.memory.read(0x10_0000, len(CODE) + 0x2346) == CODE + bytes(0x2345) + b"\xff"


def test_a_32_bit_elf_file_is_entered_in_flat_code(enter, build):
    machine = enter(build.elf(32, content=CODE, more=3 << 20, entry=0x10_0008))
    protected(machine)
    assert machine.save.rip == 0x10_0008
    assert machine.memory.read(0x10_0000 + len(CODE), 3 << 20) == bytes(3 << 20)
    assert machine.memory.read(0x10_0000 + len(CODE) + (3 << 20), 1) == b"\xff"


def test_page_tables_and_stack_keep_clear_of_the_image(enter, build):
    low = bytes(0x3000)
    machine = enter(build.elf(64, content=low, gpa=0x4000, virtual=0x4000, entry=0x4000))
    long_mode(machine)
    assert machine.save.rsp - 0x4000 == 0x7000
    assert machine.memory.read(0x4000, len(low)) == low


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpa": MEMORY - 8}, "beyond the RAM"),
        ({"entry": 0x5000}, "the entry 0x5000 is not in what is loaded"),
        ({"content": b""}, "without a segment to load"),
        ({"more": MEMORY}, "beyond the RAM"),
        ({"noted": 1, "notes": bytes(0x20), "gpa": 0, "virtual": 0, "entry": 0}, "overlaps what is loaded"),
        ({"noted": 1, "notes": bytes(0x20), "gpa": 16, "virtual": 16, "entry": 16}, "overlaps what is loaded"),
    ],
)
def test_an_elf_file_that_cannot_be_loaded(refused, build, options, words):
    assert words in refused(build.elf(64, **{"content": CODE, **options}))


# ---- multiboot


def header_at(build, *, load=0x10_0000, load_end=0, bss_end=0, entry=0x10_0020, flags=0x10000):
    return build.multiboot_header(flags, load, load, load_end, bss_end, entry)


def information(machine):
    """Check the multiboot state and return the words of the information."""
    protected(machine)
    assert machine.save.rax == 0x2BAD_B002
    words = machine.words(machine.gprs.rbx, "<22I")
    assert words[0] == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert words[1:3] == (639, 15 << 10)
    regions = []
    at, end = words[12], words[12] + words[11]
    while at < end:
        size, *region = machine.words(at, "<IQQI")
        regions.append(tuple(region))
        at += size + 4
    assert regions == [(0, 0x9FC00, 1), (0x9FC00, 0x60400, 2), (0x10_0000, 15 << 20, 1)]
    assert machine.text(words[16]) == "trapline"
    return words


def test_a_flat_multiboot_image(enter, build):
    image = header_at(build) + CODE
    machine = enter(image, append="root=/dev/null quiet")
    words = information(machine)
    assert machine.memory.read(0x10_0000, len(image) + 1) == image + b"\xff"
    assert machine.save.rip == 0x10_0020
    assert machine.text(words[4]).endswith("guest.img root=/dev/null quiet")
    assert words[5] == 0


def test_a_flat_multiboot_image_with_a_prefix_an_end_and_a_bss(enter, build):
    image = b"skip" * 4 + header_at(build, load_end=0x10_0030, bss_end=0x10_0100) + CODE
    machine = enter(image)
    information(machine)
    assert machine.memory.read(0x10_0000, 0x101) == image[16:64] + bytes(0xD0) + b"\xff"


@pytest.mark.parametrize("bits", [32, 64])
def test_multiboot_addresses_come_before_elf(enter, build, bits):
    header = build.multiboot_header(0x10000, 0x20_0000, 0x20_0000, 0, 0, 0x20_0020)
    machine = enter(build.elf(bits, content=header + CODE))
    information(machine)
    assert machine.memory.read(0x20_0000, 0x20) == header
    assert machine.save.rip == 0x20_0020


def test_a_multiboot_elf_file_with_a_module(enter, build, file):
    module = file(b"module" * 1000, "ramdisk, the second.img")
    machine = enter(build.elf(content=build.multiboot_header() + CODE, more=0x1000), initrd=module)
    words = information(machine)
    assert machine.save.rip == 0x10_0000
    assert words[5] == 1
    start, end, text, _ = machine.words(words[6], "<4I")
    assert start % 0x1000 == 0
    assert start >= 0x10_1000 + len(CODE) + 12
    assert machine.memory.read(start, end - start) == module.read_bytes()
    assert machine.text(text) == str(module)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"load_end": 0x20_0000}, "its header promises 1048576 bytes, the file has"),
        ({"load_end": 0x8_0000}, "addresses in disorder"),
        ({"bss_end": 0x10_0004}, "addresses in disorder"),
        ({"bss_end": 0xF000_0000}, "beyond the RAM"),
        ({"entry": 0x30_0000}, "the entry 0x300000 is not in what is loaded"),
    ],
)
def test_a_multiboot_image_that_cannot_be_loaded(refused, build, options, words):
    assert words in refused(header_at(build, **options) + CODE)


def test_a_kernel_that_wants_a_video_mode_needs_a_pc(file, build):
    guest = recognise(file(header_at(build, flags=0x10004) + CODE))
    assert bare_entry(guest, memory=MEMORY) == NeedsPc("the multiboot kernel asks for a video mode: it needs a PC")


def test_a_module_that_is_not_there(file, build, tmp_path):
    guest = recognise(file(header_at(build) + CODE))
    with pytest.raises(UsageError, match=r"--initrd .*: no such file"):
        bare_entry(guest, memory=MEMORY, initrd=tmp_path / "none")


def test_a_module_too_large_for_the_ram(refused, build, file):
    words = refused(header_at(build) + CODE, memory=4 << 20, initrd=file(bytes(4 << 20), "large"))
    assert "module" in words
    assert "beyond the RAM" in words


@pytest.mark.parametrize("option", ["initrd", "append"])
def test_what_is_entered_without_takes_no_module_and_no_words(file, build, option):
    guest = recognise(file(build.elf(64, content=CODE)))
    with pytest.raises(UsageError, match=f"--{option} is for multiboot and PVH kernels"):
        bare_entry(guest, memory=MEMORY, **{option: "x"})


# ---- PVH


@pytest.mark.parametrize("bits", [32, 64])
def test_a_pvh_kernel(enter, build, file, bits):
    module = file(b"module", "initrd")
    notes = build.note(descriptor=struct.pack("<Q", 0x10_0010))
    machine = enter(build.elf(bits, content=CODE, notes=notes), append="console=ttyS0", initrd=module)
    protected(machine)
    assert machine.save.rip == 0x10_0010
    magic, version, flags, count, modules, text, rsdp, regions, entries, _ = machine.words(machine.gprs.rbx, "<4I4Q2I")
    assert (magic, version, flags, count, rsdp) == (0x336E_C578, 1, 0, 1, 0)
    assert machine.text(text) == "console=ttyS0"
    start, size, _, _ = machine.words(modules, "<4Q")
    assert machine.memory.read(start, size) == b"module"
    found = [machine.words(regions + 24 * place, "<QQII") for place in range(entries)]
    assert found == [(0, 0x9FC00, 1, 0), (0x9FC00, 0x60400, 2, 0), (0x10_0000, 15 << 20, 1, 0)]


def test_a_pvh_kernel_without_words_and_modules(enter, build):
    notes = build.note(descriptor=struct.pack("<Q", 0x10_0010))
    machine = enter(build.elf(64, content=CODE, notes=notes))
    assert machine.words(machine.gprs.rbx, "<4I2Q")[3:] == (0, 0, 0)


def test_a_pvh_entry_outside(refused, build):
    assert "the entry 0x1000200 is not in" in refused(build.elf(64, content=CODE, notes=build.note()))


# ---- all


def test_a_large_memory_is_told_up_to_the_devices(file, build):
    boot = bare_entry(recognise(file(header_at(build) + CODE)), memory=8 << 30)
    machine = Machine(boot)
    assert machine.words(machine.gprs.rbx, "<3I")[2] == (0xC000_0000 - 0x10_0000) >> 10


def test_an_image_in_memory(build):
    guest = Guest(Path("code"), GuestKind.RAW, "", CODE, in_memory=True)
    boot = bare_entry(guest, memory=MEMORY, entry=Entry(32))
    assert Machine(boot).memory.read(0x10_0000, len(CODE)) == CODE


def test_a_kernel_is_entered_as_it_was_when_it_was_recognised(file, build):
    path = file(header_at(build) + CODE)
    guest = recognise(path)
    path.write_bytes(bytes(100))
    path.unlink()
    assert Machine(bare_entry(guest, memory=MEMORY)).memory.read(0x10_0020, len(CODE)) == CODE


NOTES = struct.pack("<III244x", 0, 244, 0) * 512


@pytest.mark.parametrize(
    ("kind", "size", "place"),
    [(1, 0, lambda number: 0x100000 + 16 * number), (4, 64, lambda number: 0)],
    ids=["segments", "segments of notes"],
)
def test_twice_the_segments_take_twice_the_time(file, kind, size, place):
    def made(count):
        header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, place(0), 64, 0, 0, 64, 56, count + 1, 0, 0, 0)
        segments = [
            (kind, 5, 0x20000, place(number), place(number), size * count, size * count or 16, 4)
            for number in range(count)
        ]
        segments.append((1, 5, 0, place(count), place(count), 16, 16, 4))
        content = b"\x7fELF\x02\x01\x01" + bytes(9) + header
        content += b"".join(struct.pack("<IIQQQQQQ", *segment) for segment in segments)
        return file(content.ljust(0x20000, b"\0") + NOTES, f"{count}.elf")

    def enter(path):
        bare_entry(recognise(path), memory=MEMORY)

    assert growth(made, enter, 600) < 2.2


@pytest.mark.parametrize("size", [MEMORY + 1, 40 << 30])
def test_a_module_that_ram_does_not_hold_is_not_read(file, build, size):
    guest = recognise(file(build.elf(content=build.multiboot_header(), entry=0x100000)))
    module = file(b"", "module")
    os.truncate(module, size)
    with pytest.raises(UsageError, match=f"module: {size} bytes, more than the RAM, which has {MEMORY}"):
        bare_entry(guest, memory=MEMORY, initrd=module)
