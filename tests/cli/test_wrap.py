import io

from trapline.cli.wrap import print_line, print_prose

TEXT = "#PF   cpl 0  0008:000000000010131c  address 0x110ff8  error 0x2: write, not present, supervisor"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_is_folded_on_a_terminal_and_whole_elsewhere(monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    terminal, pipe = Terminal(), io.StringIO()
    print_line(TEXT, "  ", terminal)
    print_line(TEXT, "  ", pipe)
    assert pipe.getvalue() == f"  {TEXT}\n"
    first, second = terminal.getvalue().splitlines()
    assert first.startswith("  #PF   cpl 0  0008:000000000010131c")
    assert second.startswith("      ")
    assert max(len(first), len(second)) <= 70


def test_prose_is_folded_everywhere(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    file = io.StringIO()
    print_prose("word " * 40, "  -> ", file)
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("  -> word")
    assert all(line.startswith("     word") for line in lines[1:])
    assert 50 < max(map(len, lines)) <= 60
