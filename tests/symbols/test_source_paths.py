"""Which source of a file of symbols a user's path is."""

import pytest

from trapline.symbols.source_paths import SourcePath, best

FOUND = [
    SourcePath("/build", "main.c"),
    SourcePath("/build", "init/main.c"),
    SourcePath("/build", "/usr/include/asm/io.h"),
    SourcePath("/build", "../lib/string.c"),
]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("/build/main.c", 0),
        ("/home/me/main.c", 0),
        ("/home/me/init/main.c", 1),
        ("main.c", 0),
        ("/other/asm/io.h", 2),
        ("/other/io.h", None),
        ("/home/me/lib/string.c", 3),
        ("/home/me/other.c", None),
        ("", None),
    ],
)
def test_the_end_of_a_path_decides(wanted, chosen):
    expected = set() if chosen is None else {FOUND[chosen]}
    assert best(SourcePath("", wanted), FOUND) == expected


def test_where_nothing_tells_them_apart_each_is_meant():
    both = {SourcePath("/one", "a.c"), SourcePath("/two", "a.c")}
    assert best(SourcePath("", "/home/a.c"), both) == both
