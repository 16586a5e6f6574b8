import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import AL, AX, DX, EAX
from trapline.testing.conformance.modes import LONG, PAGED_32, PROTECTED_32, REAL, TSS, UNMAPPED, VIRTUAL

PORT = 0x85
MAP = 0x68
REGISTERS = {1: AL, 2: AX, 4: EAX}


@pytest.fixture
def access(start):
    """Return a function that says whether a guest may access a port."""

    def access(bits=None, *, mode=PROTECTED_32, cpl=3, iopl=0, size=1, limit=0x200, base=MAP, port=PORT, tss=TSS):
        guest = start(("out", DX, REGISTERS[size]), "cpuid", mode=mode, cpl=cpl, exceptions=1 << Vector.GP)
        guest.save.rflags = guest.save.rflags & ~RFLAGS.IOPL | iopl << 12
        guest.save.tr.limit, guest.save.tr.base = limit, tss
        guest.memory.write(TSS + 0x66, base.to_bytes(2, "little"))
        forbidden = bytearray(b"\xff" * 0x100)
        for number in bits or ():
            forbidden[number >> 3] &= ~(1 << (number & 7))
        guest.memory.write(TSS + MAP, bytes(forbidden))
        guest.gprs.rdx = port
        return guest.exit() == ExitCode.CPUID

    return access


@pytest.mark.parametrize("mode", [PROTECTED_32, PAGED_32, LONG._replace(bits=64)])
@pytest.mark.parametrize(("cpl", "iopl", "permitted"), [(0, 0, True), (3, 3, True), (3, 2, False), (3, 0, False)])
def test_iopl(access, mode, cpl, iopl, permitted):
    assert access(mode=mode, cpl=cpl, iopl=iopl) is permitted


def test_real_mode_may_do_anything(access):
    assert access(mode=REAL, cpl=0)


@pytest.mark.parametrize(("bits", "permitted"), [((PORT,), True), ((), False), ((PORT + 1,), False)])
def test_virtual_8086_mode_asks_the_map_whatever_iopl_is(access, bits, permitted):
    assert access(bits, mode=VIRTUAL, iopl=3) is permitted


@pytest.mark.parametrize(
    ("bits", "size", "permitted"),
    [
        ((PORT,), 1, True),
        ((PORT, PORT + 1), 2, True),
        ((PORT,), 2, False),
        (range(PORT, PORT + 4), 4, True),
        ((PORT, PORT + 1, PORT + 2), 4, False),
        (range(PORT + 1, PORT + 4), 4, False),
    ],
)
def test_each_byte_of_an_access_is_asked_for(access, bits, size, permitted):
    assert access(bits, size=size) is permitted


@pytest.mark.parametrize(
    ("limit", "permitted"), [(MAP + (PORT >> 3) + 1, True), (MAP + (PORT >> 3), False), (0x67, False), (0x66, False)]
)
def test_the_map_ends_with_the_tss(access, limit, permitted):
    """Two bytes are always read, and so the limit lies one behind (APM 12.2.4)."""
    assert access((PORT,), limit=limit) is permitted


def test_a_tss_that_is_not_mapped_permits_nothing(access):
    assert not access(range(0x100), mode=PAGED_32, tss=UNMAPPED)
