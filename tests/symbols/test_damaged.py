"""Files that are made to take all memory or all time: each is a sentence, or symbols without lines."""

import contextlib
import os
import tracemalloc

import pytest

from tests.growth import growth
from tools.file_fuzzing.symbol_files import (
    ABBREVIATION,
    START,
    compressed,
    debug,
    elf,
    line_table,
    named,
    unit,
    with_lines,
    with_symbols,
)
from trapline.errors import UsageError
from trapline.symbols import load
from trapline.symbols.demangle import demangle


@pytest.fixture
def file(tmp_path):
    def file(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return file


def test_lines_are_found_in_what_is_not_damaged(file):
    symbol = load(file(with_lines(unit(), ABBREVIATION, line_table(16)))).lookup(START + 3)
    assert (symbol.name, symbol.file, symbol.line) == ("main", "a.c", 1)


@pytest.mark.parametrize("size", [8 << 30, 1 << 62])
def test_what_a_section_unpacks_to_is_bounded(file, caplog, size):
    path = file(named(compressed(".debug_info", size, bytes(1 << 20)), debug(".debug_abbrev", ABBREVIATION)))
    assert load(path).lookup(START).source is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: ")
    assert record.getMessage().endswith(": source lines are left out")


def test_no_more_is_unpacked_than_a_section_says(file):
    path = file(named(compressed(".debug_info", 5, bytes(1 << 20)), debug(".debug_abbrev", ABBREVIATION)))
    assert load(path).lookup(START).source is None


def test_a_compressed_section_is_read_by_its_size(file):
    path = file(
        named(
            compressed(".debug_info", len(unit()), unit()),
            compressed(".debug_abbrev", len(ABBREVIATION), ABBREVIATION),
            compressed(".debug_line", len(line_table(16)), line_table(16)),
        )
    )
    assert load(path).lookup(START + 3).source == "a.c:1"


def test_symbols_that_share_a_long_name_do_not_multiply_it(file):
    def symbols(count):
        strings = b"\0" + b"x" * (1 << 18) + b"\0"
        return file(with_symbols([(1 + number, START + number, 1) for number in range(count)], strings), f"{count}")

    tracemalloc.start()
    try:
        assert load(symbols(500)).lookup(START).name == "x" * 4096 + "..."
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_names_are_bounded_together(file, monkeypatch):
    monkeypatch.setattr("trapline.symbols.elf._NAMES", 100)
    with pytest.raises(UsageError, match="its symbols are more than 1,000,000, or their names longer than 100 bytes"):
        load(file(with_symbols([(1, START, 1), (2, START + 1, 1)], b"\0" + b"x" * 80 + b"\0")))


@pytest.mark.parametrize(
    "make",
    [
        lambda count: with_lines(b"".join(map(unit, range(count))), ABBREVIATION, b""),
        lambda count: with_lines(
            b"".join(unit(n, 0, 5 * n) for n in range(count)), b"\x01\x11\0\0\0" * count + b"\0", b""
        ),
        lambda count: with_lines(b"\0\0\0\0" * count, ABBREVIATION, b""),
        lambda count: with_lines(unit(), ABBREVIATION, line_table(count)),
        lambda count: with_symbols([(1, START, 1)] * count, b"\0main\0"),
        lambda count: elf([(f".text{number}", 1, 6, START, b"", 0) for number in range(count)]),
    ],
    ids=["units", "units with their own abbreviations", "empty units", "rows", "symbols", "sections"],
)
def test_twice_the_file_takes_twice_the_time(file, make, monkeypatch):
    monkeypatch.setattr("trapline.symbols.lines._UNITS", 4000)

    def look_up(path):
        with contextlib.suppress(UsageError):  # a file without symbols
            load(path).lookup(START)

    assert growth(lambda count: file(make(count), f"{count}"), look_up, 300) < 2.3


def test_the_work_on_units_is_bounded(file, caplog, monkeypatch):
    """Each unit has its own abbreviations, which are all the rest of a section."""
    monkeypatch.setattr("trapline.symbols.lines._UNITS", 1000)
    units = b"".join(unit(number, 0, 7 * number) for number in range(100))
    path = file(with_lines(units, b"\x01\x11\0\x10\x17\0\0" * 100 + b"\0", b""))
    assert load(path).lookup(START).source is None
    assert "too many entries" in caplog.text


@pytest.mark.parametrize("size", [40 << 30, 3 << 30])
def test_a_sparse_file_is_not_read(file, size):
    elf_file, text = file(named()), file(b"0000000000100000 T main\n", "System.map")
    for path in (elf_file, text):
        os.truncate(path, size)
    assert load(elf_file).lookup(START).name == "main"
    with pytest.raises(UsageError, match=r"line 2 is not one of a System\.map"):
        load(text)


def test_a_device_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in ("/dev/zero", tmp_path / "fifo"):
        with pytest.raises(UsageError, match="not a regular file"):
            load(type(tmp_path)(path))


def test_a_name_that_is_huge_when_it_is_demangled_stays_as_it_is():
    pytest.importorskip("cpp_demangle")
    doubling = "_Z1f1AIiE" + "".join(f"S_IS{number}_S{number}_E" for number in range(9))
    assert len(demangle(doubling)) > 1000
    assert demangle(doubling + doubling[9:] * 2) == doubling + doubling[9:] * 2
    assert demangle("_Z" + "x" * 5000) == "_Z" + "x" * 5000


NOTHING = {"no form": b"\0", "a form without bytes": b"\x01\x01\x19"}
PATH = b"\x01\x01\x08"


@pytest.mark.parametrize("empty", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("start", [b"", PATH + b"\x01/home\0"], ids=["directories", "files"])
def test_files_without_fields_are_not_counted_to_a_billion(file, start, empty):
    names = start + empty + b"\xff\xff\xff\xff\x03"
    path = file(with_lines(unit(), ABBREVIATION, line_table(16, names, 5)))
    assert load(path).lookup(START + 3).source is None


def test_a_line_table_of_dwarf_5_is_read(file):
    names = PATH + b"\x01/home\0" + PATH + b"\x02a.c\0b.c\0"
    path = file(with_lines(unit(), ABBREVIATION, line_table(16, names, 5)))
    assert load(path).lookup(START + 3).source == "/home/b.c:1"


def test_attributes_without_bytes_count(file, caplog, monkeypatch):
    monkeypatch.setattr("trapline.symbols.lines._UNITS", 20_000)
    abbreviation = bytes([1, 0x11, 0]) + bytes([0x34, 0x19]) * 2000 + bytes(3)
    path = file(with_lines(b"".join(unit(number) for number in range(100)), abbreviation, b""))
    assert load(path).lookup(START).source is None
    assert "too many entries" in caplog.text
