"""Guest images, each built by code from the fields that its format demands."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tools.file_fuzzing.images import bzimage, disk, efi_program, elf, iso, multiboot_header, note


@pytest.fixture(scope="session")
def build():
    functions = (bzimage, multiboot_header, note, elf, iso, disk, efi_program)
    return SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture
def file(tmp_path):
    """Write bytes to a file and return its path."""

    def write(content, name="guest.img"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
