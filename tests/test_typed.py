"""Numbers and messages of what a user typed."""

import pytest

from trapline.errors import UsageError
from trapline.typed import integer, one_line, printable, read_integer, shortened


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("16", 16),
        ("0x10", 16),
        ("0XfF", 255),
        (" 7\n", 7),
        ("-1", -1),
        ("+3", 3),
        ("007", 7),
        ("0b101", 5),
        ("0" * 5000, 0),
    ],
)
def test_whole_numbers(text, value):
    assert read_integer(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "0x",
        "1.5",
        "1e3",
        "1_000",
        "0b2",
        "0o7",
        "--1",
        "1 2",
        "9" * 5000,
        "0x" + "f" * 5000,
        "٣",
        "²",
        "１",
    ],
)
def test_what_is_not_a_whole_number(text):
    assert read_integer(text) is None


@pytest.mark.parametrize("text", ["15", "65", "-16", "9" * 5000, "", "sixteen"])
def test_bounds(text):
    with pytest.raises(UsageError, match=r"^--mode .*: a whole number from 16 to 64, such as 16 or 0x10$") as caught:
        integer(text, "--mode", 16, 64)
    assert len(str(caught.value)) < 120


def test_messages_are_one_line_without_control_characters():
    assert one_line("a\nb\x1b[2Jc\x00") == r"a\nb\x1b[2Jc\x00"
    assert printable("a\nb\x1b[2J\t") == "a\nb\\x1b[2J\t"
    assert len(one_line("x" * 100_000)) < 1000
    assert shortened("x" * 61).count("...") == 1
    assert shortened("x" * 60) == "x" * 60
