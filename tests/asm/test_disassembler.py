from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.asm.disassembler import around, disassemble

CODE = bytes.fromhex("55 4889e5 c70500000000 78563412 0f0b 90 90 c3")


def texts(lines):
    return [line.text for line in lines]


@pytest.mark.parametrize(
    ("bits", "syntax", "code", "text"),
    [
        (64, "intel", "8b05f0ffffff", "mov eax, [0xff6]"),
        (64, "intel", "48c7c0ffffffff", "mov rax, 0xffffffffffffffff"),
        (64, "att", "488945f8", "mov %rax, -8(%rbp)"),
        (32, "intel", "8b4508", "mov eax, [ebp+8]"),
        (16, "intel", "8b4608", "mov ax, [bp+8]"),
        (16, "att", "cd10", "int $0x10"),
        (64, "intel", "ebfe", "jmp 0x1000"),
        (64, "intel", "06", "(bad)"),
        (64, "intel", "48", "(bad)"),
        (32, "intel", "06", "push es"),
    ],
)
def test_an_instruction(bits, syntax, code, text):
    (line,) = disassemble(bytes.fromhex(code), 0x1000, bits, syntax=syntax)
    assert line.text == text
    assert (line.address, line.data) == (0x1000, bytes.fromhex(code))


def test_the_faulting_instruction_with_its_neighbours():
    lines = around(CODE, 0x1000, 0x100E, 64)
    assert texts(lines) == [
        "push rbp",
        "mov rbp, rsp",
        "mov dword ptr [0x100e], 0x12345678",
        "ud2",
        "nop",
        "nop",
        "ret",
    ]
    assert lines[3].address == 0x100E
    assert texts(around(CODE, 0x1000, 0x100E, 64, before=1, after=0))[1:] == ["ud2"]


def test_bytes_before_that_lead_nowhere_are_left_out():
    assert texts(around(b"\x06\x0f\x0b", 0, 1, 64)) == ["ud2"]
    assert texts(around(b"\x0f\x0b", 5, 5, 64)) == ["ud2"]
    assert around(b"", 5, 5, 64) == []


@given(
    st.binary(max_size=60), st.sampled_from([16, 32, 64]), st.sampled_from(["intel", "att"]), st.integers(0, 1 << 63)
)
def test_every_byte_is_shown_once(code, bits, syntax, address):
    lines = disassemble(code, address, bits, syntax=syntax)
    assert b"".join(line.data for line in lines) == code
    assert [line.address for line in lines[:1]] == [address] * bool(code)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_what_is_around_leads_to_the_instruction(code, data):
    place = data.draw(st.integers(0, len(code) - 1))
    lines = around(code, 0x1000, 0x1000 + place, 64)
    (number,) = [number for number, line in enumerate(lines) if line.address == 0x1000 + place]
    assert number <= 3
    assert len(lines) - number <= 4
    for line, following in pairwise(lines):
        assert line.address + len(line.data) == following.address
