import iced_x86 as iced
import pytest


@pytest.fixture
def decode():
    """Return a function that decodes machine code completely: no byte may be left that is no instruction."""

    def decode(code, bits, address):
        instructions = list(iced.Decoder(bits, code, ip=address))
        assert all(not instruction.is_invalid for instruction in instructions)
        assert sum(instruction.len for instruction in instructions) == len(code)
        return instructions

    return decode
