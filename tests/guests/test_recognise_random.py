"""Whatever the bytes are: a guest, or one line that refuses them."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.errors import GuestImageError
from trapline.guests.boot import Entry, bare_entry
from trapline.guests.guest import Guest
from trapline.guests.recognise import recognise
from trapline.machine.boot import Boot

MEMORY = 16 << 20
MAGICS = st.sampled_from([b"", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01", b"MZ", b"\x02\xb0\xad\x1b", b"\x1f\x8b"])
same_file = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answer(path):
    try:
        guest = recognise(path)
        boot = bare_entry(guest, memory=MEMORY, entry=Entry(boot_sector=True))
    except GuestImageError as error:
        message = str(error)
        assert "\n" not in message
        return None
    if isinstance(boot, Boot):
        assert "\n" not in boot.description
        places = sorted((gpa, gpa + len(data)) for gpa, data in boot.loads)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))
        assert places[-1][1] <= MEMORY
        vmcb = Vmcb()
        boot.enter(vmcb.save, Gprs())
    return guest


@same_file
@given(magic=MAGICS, content=st.binary(max_size=1024))
def test_random_bytes_are_known_or_refused(file, magic, content):
    answer(file(magic + content))


@pytest.fixture(params=["bzimage", "elf32", "elf64", "plain", "pvh", "flat", "iso", "disk", "efi"])
def image(request, build):
    header = build.multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020)
    return {
        "bzimage": build.bzimage,
        "elf32": lambda: build.elf(32, content=build.multiboot_header(), notes=build.note()),
        "elf64": lambda: build.elf(64, notes=build.note()),
        "plain": lambda: build.elf(64, content=bytes(800), more=0x1000),
        "pvh": lambda: build.elf(64, content=bytes(800), notes=build.note(descriptor=struct.pack("<Q", 0x100040))),
        "flat": lambda: header + bytes(600),
        "iso": build.iso,
        "disk": lambda: build.disk(partitions=[(0, 0xEE, 1, 2)], gpt=True),
        "efi": build.efi_program,
    }[request.param]()


@same_file
@given(data=st.data())
def test_a_truncated_image_is_known_or_refused(file, image, data):
    # Most of what matters lies in the first 4 KiB.
    end = data.draw(st.integers(0, min(len(image), 4096)) | st.integers(0, len(image)))
    answer(file(image[:end]))


@same_file
@given(data=st.data())
def test_a_damaged_image_is_known_or_refused(file, image, data):
    damaged = bytearray(image)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(image), 1200) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    guest = answer(file(bytes(damaged)))
    assert guest is None or isinstance(guest, Guest)
