import io

import pytest

from trapline.cli.terminal import width_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("columns", "width"), [("20", 60), ("70", 70), ("300", 120)])
def test_text_is_as_wide_as_the_terminal_within_limits(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert width_of(Terminal()) == (width, width)
    assert width_of(io.StringIO()) == (width, None)
