import pytest

from trapline.errors import UsageError
from trapline.symbols import load

MAP = """\
0000000000000000 D fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000040 t early_setup
ffffffff81000080 W weak_name
ffffffff81000080 T strong_name
ffffffff810000c0 T __pfx_memset
ffffffff810000d0 T memset
ffffffff81001000 T _etext
ffffffff81200000 R __start_rodata
ffffffff81300000 D jiffies
ffffffffc0000000 t fill\t[brd]
ffffffffc0000020 t drain\t[brd]
"""


@pytest.fixture
def symbols(tmp_path):
    path = tmp_path / "System.map"
    path.write_text(MAP)
    return load(path)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (0xFFFF_FFFF_8100_0000, "startup_64+0x0"),
        (0xFFFF_FFFF_8100_0041, "early_setup+0x1"),
        (0xFFFF_FFFF_8100_0081, "strong_name+0x1"),
        (0xFFFF_FFFF_8100_0FFF, "memset+0xf2f"),
        (0xFFFF_FFFF_8100_1000, None),  # _etext is a place, not a function
        (0xFFFF_FFFF_8120_0000, None),
        (0xFFFF_FFFF_8130_0001, None),
        (0xFFFF_FFFF_C000_0001, "fill+0x1"),
        (0xFFFF_FFFF_C000_0FFF, "drain+0xfdf"),
        (0xFFFF_FFFF_C000_1000, None),  # behind the page of the last name
        (0x40_0000, None),
        (1, None),
        ((1 << 64) - 1, None),
    ],
)
def test_names(symbols, address, place):
    found = symbols.lookup(address)
    assert (found and found.place) == place


def test_variables(symbols):
    assert symbols.variables == {
        "fixed_percpu_data": 0,
        "__start_rodata": 0xFFFF_FFFF_8120_0000,
        "jiffies": 0xFFFF_FFFF_8130_0000,
    }


def test_no_lines_are_told(symbols):
    assert symbols.lookup(0xFFFF_FFFF_8100_0000).source is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n",
            "line 1 is not",
        ),
        ("0000000000000000 T startup_64\n0000000000000000 t early\n", "kptr_restrict"),
        ("ffffffff81300000 D jiffies\n", "no functions"),
        ("ffffffff81000000 T startup_64\nhello\n", "line 2"),
    ],
)
def test_what_is_none(tmp_path, text, words):
    path = tmp_path / "System.map"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)
