import pytest

from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
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
        access.guest = guest
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
    """Two bytes are always read, and so the limit is one more (APM 12.2.4)."""
    assert access((PORT,), limit=limit) is permitted


@pytest.mark.parametrize(("base", "address"), [(UNMAPPED, UNMAPPED + 0x66), (UNMAPPED - 0x68, UNMAPPED)])
@pytest.mark.parametrize("lines", [("out", DX, AL), ("in", AL, DX)])
def test_a_map_that_is_not_mapped_is_a_page_fault_of_the_supervisor(start, lines, base, address):
    guest = start(lines, "cpuid", mode=PAGED_32, cpl=3, exceptions=1 << Vector.GP | 1 << Vector.PF)
    guest.memory.write(UNMAPPED - 2, MAP.to_bytes(2, "little"))
    guest.save.tr.limit, guest.save.tr.base, guest.gprs.rdx, rip = 0x200, base, 0, guest.save.rip
    assert guest.exit() == EXCEPTION_EXITS.start + Vector.PF
    assert (guest.control.exit_info_1, guest.control.exit_info_2, guest.save.rip) == (0, address, rip)


def test_a_tss_that_is_not_canonical_permits_nothing(start):
    guest = start(("out", DX, AL), "cpuid", mode=LONG, cpl=3, exceptions=1 << Vector.GP | 1 << Vector.PF)
    guest.save.tr.limit, guest.save.tr.base = 0x200, 1 << 50
    assert guest.exit() == EXCEPTION_EXITS.start + Vector.GP
    assert guest.control.exit_info_1 == 0


@pytest.mark.parametrize(
    ("base", "mode", "told"), [(0x40, PROTECTED_32, True), (MAP, PROTECTED_32, False), (0x40, VIRTUAL, False)]
)
def test_a_map_inside_the_tss_is_told(access, base, mode, told):
    port = 8 * (MAP - base) + 1
    assert access((1,), mode=mode, base=base, port=port)
    hints = access.guest.processor.hints
    hints = [hint for hint in hints if "I/O map" in hint]
    assert len(hints) == told
    assert not told or "the map base is 0x40, inside the TSS (limit 0x200)" in hints[0]
