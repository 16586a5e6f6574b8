import pytest

from trapline.cli.live import LiveLines


@pytest.mark.parametrize(
    ("lines", "printed"),
    [
        ("abc", ["a", "b", "c"]),
        ("aab", ["a", "  x2", "b"]),
        ("a" * 10, ["a", "  x10"]),
        ("a" * 123 + "b", ["a", "  x10", "  x100", "  x123", "b"]),
        ("aba", ["a", "b", "a"]),
        ("", []),
    ],
)
def test_repeats_are_folded(lines, printed):
    said = []
    live = LiveLines(said.append)
    for line in lines:
        live.take(line)
    live.finish()
    assert said == printed
