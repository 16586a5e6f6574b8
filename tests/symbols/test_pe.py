"""Symbols of portable executables, as GNU ld writes them."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs.efi import build_efi
from trapline.errors import UsageError
from trapline.symbols import load, pe
from trapline.symbols.files import of_image

SOURCE = """\
__attribute__((noinline)) static int broken(volatile int *place)
{
    return *place;
}
int efi_main(void *image, void *table)
{
    return broken(image) + broken(table);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """An EFI program with DWARF; its directory has one without symbols too."""
    if missing := build_efi.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    folder = tmp_path_factory.mktemp("pe")
    (folder / "x.c").write_text(SOURCE)
    build_efi.build(folder / "x.c", folder / "stripped.efi", stripped=True)
    return build_efi.build(folder / "x.c", folder / "x.efi")


def test_functions_and_lines_are_found_where_the_image_is_loaded(program):
    symbols = load(program)
    assert symbols.link_base == build_efi.BASE
    symbols.slide = 0x0DD4_2000 - build_efi.BASE
    begin = symbols.addresses(("broken", "efi_main"))
    assert set(begin) == {"broken", "efi_main"}
    found = symbols.lookup(begin["broken"] + symbols.slide)
    assert (found.name, found.offset, found.file) == ("broken", 0, "x.c")
    assert found.line in (2, 3)
    assert symbols.lookup(begin["efi_main"] + symbols.slide + 1).place == "efi_main+0x1"
    assert symbols.lookup(build_efi.BASE + symbols.slide) is None  # headers


def test_a_stripped_one_is_refused_as_a_file_and_has_no_names_as_a_guest(program):
    stripped = program.with_name("stripped.efi")
    with pytest.raises(UsageError, match="a portable executable without symbols"):
        load(stripped)
    assert of_image("x", lambda: stripped.open("rb")) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(program, tmp_path_factory, data):
    content = bytearray(program.read_bytes())
    size = data.draw(st.integers(2, len(content)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(2, 0x400))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.efi"
    path.write_bytes(content[:size])
    try:
        symbols = load(path)
    except UsageError:
        return
    for name in ("broken", "efi_main"):
        for address in symbols.addresses((name,)).values():
            assert symbols.lookup(address).name == name


@pytest.mark.parametrize("signature", [b"RSDS" + bytes(20), b"NB10" + bytes(12)])
def test_the_path_of_the_debug_information_is_in_the_image(signature):
    image = bytearray(0x400)
    record = signature + b"/build/Shell.dll\0"
    struct.pack_into("<12xIII4x", image, 0x100, 1, 0, 0)
    struct.pack_into("<12xIII4x", image, 0x11C, 2, len(record), 0x200)
    image[0x200 : 0x200 + len(record)] = record
    header = pe.Header(0, (0x100, 56), (0, 0), (0, 0))
    assert pe.debug_path(lambda at, size: bytes(image[at : at + size]), header) == "/build/Shell.dll"
    assert pe.debug_path(lambda at, size: bytes(size), header) is None


def test_what_is_stored_with_a_symbol_is_not_one():
    def symbol(name, value, more=0):
        return struct.pack("<8sIhHBB", name, value, 1, 0x20, 2, more)

    text = pe.Section(".text", 0x1000, 0x100, 0, 0x100, is_code=True)
    opened = pe.File(pe.Header(0, (0, 0), (0, 0), (0, 0)), [text], b"")
    table = symbol(b"one", 0, more=1) + symbol(b"more", 4) + symbol(b"two", 8)
    assert [each.name for each in pe._functions(opened, table)] == ["one", "two"]
