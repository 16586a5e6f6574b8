"""A guest on its way to a processor."""

import os
import sys

import pytest

from tests.guests.conftest import elf, multiboot_header
from trapline.api import run
from trapline.guests.formats import elf as elf_format

EXIT = b"\xb0\x00\xe6\xf4\xf4"  # mov al, 0; out 0xf4, al; hlt
KERNELS = {
    "ELF": elf(64, content=EXIT),
    "multiboot": elf(32, content=multiboot_header() + EXIT, entry=0x10000C),
}

_opened: list[str] = []
_listening = False


def _listen(event, arguments):
    if _listening and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


sys.addaudithook(_listen)  # for good: a hook cannot be taken away


@pytest.fixture
def opened():
    """The names of all files that this process opens."""
    global _listening
    _opened.clear()
    _listening = True
    yield _opened
    _listening = False


@pytest.mark.parametrize("name", KERNELS)
def test_a_guests_file_is_opened_once_and_parsed_once(name, tmp_path, opened, monkeypatch):
    path = tmp_path / "kernel"
    path.write_bytes(KERNELS[name])
    opened.clear()
    parse, parsed = elf_format.parse, []
    monkeypatch.setattr(elf_format, "parse", lambda content, *size: parsed.append(content) or parse(content, *size))
    result = run(path, processor="unicorn", timeout=60)
    assert (result.exit_status, result.processor) == (1, "unicorn")
    assert opened.count(str(path)) == 1
    assert parsed == [KERNELS[name]]
