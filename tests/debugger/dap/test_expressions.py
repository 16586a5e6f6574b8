"""Expressions over registers, symbols and memory."""

import pytest

from trapline.debugger.dap.expressions import Value, evaluate
from trapline.errors import FaultError, UsageError

MEMORY = bytes(range(1, 17))
REGISTERS = {"rax": 5, "rsp": 0x1000, "bits": 0xF0}
SYMBOLS = {"kmain": 0x8000, "kmain+0x10": 0x8010, "ns::f": 0x9000, ".loop": 0x9100, "in": 0x9200, "rax": 0x666}


class Fake:
    width = 4

    def register(self, name):
        return REGISTERS.get(name.lower())

    def symbol(self, name):
        return SYMBOLS.get(name)

    def read(self, address, size):
        if not 0x1000 <= address <= 0x1010 - size:
            raise FaultError(address)
        return MEMORY[address - 0x1000 :][:size]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1 + 2 * 3", 7),
        ("-1", 2**64 - 1),
        ("~0 >> 60", 15),
        ("1 << 64", 0),
        ("0x10 ^ 0b11 | 4 & 6", 0x17),
        ("$rax", 5),
        ("RAX", 5),
        ("rax + 1", 6),
        ("kmain + 4", 0x8004),
        ("kmain+0x10", 0x8010),
        ("ns::f", 0x9000),
        (".loop", 0x9100),
        ("in", 0x9200),
        ("[rsp]", 0x04030201),
        ("byte [rsp + 1]", 2),
        ("word ptr [$rsp]", 0x0201),
        ("qword [rsp + byte [rsp]]", 0x0908070605040302),
        ("rax == 5", 1),
        ("rax == 5 and not rsp == 5", 1),
        ("1 < rax < 3 or rsp < 1", 0),
        ("(rax != 5) + 2", 2),
        (" 7 ", 7),
    ],
)
def test_the_number_of_an_expression(text, number):
    assert evaluate(text, Fake()).number == number


def test_a_value_knows_what_it_is():
    assert evaluate("$RAX", Fake()) == Value(5, register="rax")
    assert evaluate("word [rsp + 2]", Fake()) == Value(0x0403, 2, 0x1002)
    assert evaluate("kmain + 1", Fake()).is_symbol


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "1 +",
        "rax rax",
        "f(1)",
        "2 ** 70",
        "1.5",
        "'a'",
        "True",
        "[1, 2]",
        "rax[1]",
        "dword [1:2]",
        "a.b",
        "lambda: 1",
        "(" * 300,
        "1 if 1 else 2",
        "\0",
        "1" * 999,
        "x" * 2000,
        "rax in [1]",
    ],
)
def test_what_is_not_an_expression_is_told(text):
    with pytest.raises(UsageError):
        evaluate(text, Fake())


def test_memory_that_is_not_mapped_is_told():
    with pytest.raises(FaultError):
        evaluate("[0]", Fake())
