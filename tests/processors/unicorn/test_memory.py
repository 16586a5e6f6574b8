"""Stores of the processor itself: frames, and what the hypervisor writes."""

import pytest

from trapline.arch.vectors import FORCEABLE
from trapline.hypervisor.vm import Vm
from trapline.machine.boot import Boot
from trapline.processors.unicorn.processor import UnicornProcessor

SEGMENT = 0xB800
VICTIM = 0x80

START = bytes.fromhex(
    "b900b8 8ed1 bc0010"  # MOV SP, B800:1000
    "e87500"  # CALL victim
    "baf803 ee"  # OUT 3F8h, AL
    "bc8300 cd40"  # MOV SP, victim + 3; INT 40h
)
HANDLER = bytes.fromhex(
    "bc0010 e83a00"  # MOV SP, 1000h; CALL victim
    "baf803 ee"  # OUT 3F8h, AL
    "b000 e6f4"  # the debug exit port
)
FUNCTION = bytes.fromhex("b81111 c3")  # MOV AX, 1111h; RET


@pytest.fixture
def boot():
    """Real mode at B800:0000, with a function that the frame of INT 40h overwrites.

    CS is pushed over its first byte, which stays as it was, and the flags over its operand.
    """

    def enter(save, gprs):
        save.cs.selector, save.cs.base, save.rip = SEGMENT, SEGMENT << 4, 0

    base = SEGMENT << 4
    vector = 0x40.to_bytes(2, "little") + SEGMENT.to_bytes(2, "little")
    loads = [(0x100, vector), (base, START), (base + 0x40, HANDLER), (base + VICTIM, FUNCTION)]
    return Boot("raw", "a function under a frame", loads, enter)


@pytest.mark.parametrize("mask", [0, FORCEABLE])
def test_code_under_a_frame_is_executed_as_it_is_now(boot, mask):
    output = bytearray()
    with UnicornProcessor(boot, 1 << 20, output=output.extend) as processor:
        Vm(processor, mask=mask, enter=boot.enter).run(None)
    assert output == b"\x11\x02"
