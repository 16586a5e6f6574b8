import ast
import io
import logging

import pytest

from tests.test_house import SOURCES
from trapline.cli.table import print_table
from trapline.cli.terminal import PrintableFormatter, tell, width_of

RED = "\x1b[31m\x9b0m\r\x07\u202e\udcff"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("columns", "width"), [("20", 60), ("70", 70), ("300", 120)])
def test_text_is_as_wide_as_the_terminal_within_limits(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert width_of(Terminal()) == (width, width)
    assert width_of(io.StringIO()) == (width, None)


def test_control_characters_are_escaped_wherever_text_is_printed():
    record = logging.LogRecord("name", logging.WARNING, "path", 1, "a %s", (RED,), None)
    printed = [PrintableFormatter("%(message)s").format(record)]
    for show in (lambda file: tell("a", RED, file=file), lambda file: print_table(("head",), [(RED,)], file=file)):
        show(file := io.StringIO())
        printed.append(file.getvalue().replace("\n", ""))
    for text in printed:
        assert text.isprintable()
        assert r"\x1b[31m\x9b0m\r\x07\u202e\udcff" in text


def test_no_other_module_prints_what_it_did_not_write_itself():
    found = []
    for path in (SOURCES / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                text = ", ".join(ast.unparse(each) for each in node.args if not isinstance(each, ast.Constant))
                found += [path.name] if text else []
    assert found == ["terminal.py"]


def test_the_name_of_a_symbol_does_not_move_the_cursor(trapline_command, tmp_path):
    image, symbols = tmp_path / "guest", tmp_path / "\x1b[2J"
    image.write_bytes(b"\x0f\x0b")
    symbols.write_bytes(b"0000000000100000 T \x1b[31mmain\x07\n0000000000100100 D end\n")
    done = trapline_command("run", image, "--entry-mode", "64", "--symbols", symbols, "--live", "--timeout", "60")
    assert done.status == 3
    assert r"\x1b[31mmain\x07+0x0" in done.err
    assert done.err.replace("\n", "").isprintable()
    symbols.write_bytes(b"what")
    done = trapline_command("run", image, "--entry-mode", "64", "--symbols", symbols)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.strip().isprintable()
