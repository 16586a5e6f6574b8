"""Between 640 KiB and 1 MiB there is the text screen, what was loaded there, and nothing else."""

import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.vectors import Vector
from trapline.asm.operands import EAX, EBX, Mem
from trapline.processors.unicorn.address_map import between, holes
from trapline.testing.conformance.modes import PROTECTED_32


def test_what_is_loaded_is_ram():
    loads = [(0x9_F000, bytes(0x1800)), (0xF_F500, b"x"), (0x10_0000, bytes(16))]
    found = holes(2 << 20, loads)
    assert found == [(0xA_1000, 0xB_8000), (0xC_0000, 0xF_F000)]
    assert list(between(2 << 20, found)) == [(0, 0xA_1000), (0xB_8000, 0xC_0000), (0xF_F000, 0x20_0000)]
    assert list(between(0xB_0000, holes(0xB_0000, ()))) == [(0, 0xA_0000)]


@pytest.mark.parametrize(
    ("gpa", "kept", "hinted"),
    [(0x9_FFFC, True, False), (0xA_0000, False, True), (0xB_8000, True, False), (0xC_0000, False, False),
     (0xF_FFFC, False, True), (0x10_0000, True, False)],
)  # fmt: skip
def test_a_guest_that_writes_and_reads(start, gpa, kept, hinted):
    at = Mem(None, gpa, size=32)
    guest = start(
        ("mov", EBX, at), ("mov", EAX, 0x1234), ("mov", at, EAX), ("mov", EAX, at), "cpuid", mode=PROTECTED_32
    )
    assert guest.exit() == ExitCode.CPUID
    assert (guest.gprs.rbx, guest.save.rax) == ((0, 0x1234) if kept else (0xFFFF_FFFF, 0xFFFF_FFFF))
    assert guest.u32(gpa) == guest.save.rax
    assert bool(guest.processor.hints) is hinted


def test_code_where_there_is_none(start):
    guest = start(("mov", EAX, 0xC_0000), ("jmp", EAX), mode=PROTECTED_32, exceptions=1 << Vector.UD)
    assert guest.exit() == 0x40 + Vector.UD
    assert guest.save.rip == 0xC_0000
