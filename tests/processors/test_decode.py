import pytest

from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vmcb import Vmcb
from trapline.machine.scripted import ScriptedMemory
from trapline.processors import decode
from trapline.processors.decode import Mnemonic

LONG, D32 = 1 << 9, 1 << 10


@pytest.fixture
def vmcb():
    return Vmcb.from_buffer(bytearray(0x1000))


@pytest.fixture
def ram():
    return ScriptedMemory(0x10000)


@pytest.mark.parametrize(
    ("efer", "attributes", "bits"),
    [
        (0, 0, 16),
        (0, D32, 32),
        (0, LONG, 16),
        (EFER.LMA, LONG, 64),
        (EFER.LMA, D32, 32),
        (EFER.LMA, 0, 16),
        (EFER.LME, LONG | D32, 32),
    ],
)
def test_the_size_of_code(vmcb, efer, attributes, bits):
    vmcb.save.efer, vmcb.save.cs.attributes = efer, attributes
    assert decode.bits_of(vmcb) == bits


@pytest.mark.parametrize(
    ("code", "bits", "mnemonic", "length", "immediate", "writes_control"),
    [
        ("cc", 16, Mnemonic.INT3, 1, 0, False),
        ("ce", 32, Mnemonic.INTO, 1, 0, False),
        ("cd80", 32, Mnemonic.INT, 2, 0x80, False),
        ("cd03", 16, Mnemonic.INT, 2, 3, False),
        ("66cc", 32, Mnemonic.INT3, 2, 0, False),
        ("f3cd21", 16, Mnemonic.INT, 3, 0x21, False),
        ("0f01d8", 32, Mnemonic.VMRUN, 3, 0, False),
        ("0f32", 64, Mnemonic.RDMSR, 2, 0, False),
        ("0f22e0", 64, Mnemonic.MOV, 3, 0, True),
        ("0f22d8", 32, Mnemonic.MOV, 3, 0, True),
        ("0f22c0", 16, Mnemonic.MOV, 3, 0, True),
        ("0f20e0", 64, Mnemonic.MOV, 3, 0, False),
        ("440f22c0", 64, Mnemonic.MOV, 4, 0, False),  # CR8
        ("0f23c0", 64, Mnemonic.MOV, 3, 0, False),  # DR0
        ("8b00", 64, Mnemonic.MOV, 2, 0, False),
        ("8900", 32, Mnemonic.MOV, 2, 0, False),
    ],
)
def test_instructions(vmcb, ram, code, bits, mnemonic, length, immediate, writes_control):
    ram.write(0x1234, bytes.fromhex(code))
    vmcb.save.rip, vmcb.save.cs.base = 0x234, 0x1000
    vmcb.save.cs.attributes = {16: 0, 32: D32, 64: LONG}[bits]
    vmcb.save.efer = EFER.LMA if bits == 64 else 0
    found = decode.decode_at_rip(vmcb, ram)
    assert found[:4] == (mnemonic, length, immediate, writes_control)


@pytest.mark.parametrize(
    ("code", "bits", "length", "register"),
    [
        ("440f20c1", 64, 4, 1),  # MOV RCX, CR8
        ("450f22c7", 64, 4, 15),  # MOV CR8, R15
        ("f00f22c4", 32, 4, 4),  # MOV CR8, ESP as 32-bit code has it
        ("0f23f8", 64, 3, 0),  # MOV DR7, RAX
        ("0f21f5", 32, 3, 5),  # MOV EBP, DR6
        ("0f0b", 64, 2, -1),
    ],
)
def test_the_general_register_of_a_mov(vmcb, ram, code, bits, length, register):
    ram.write(0x1000, bytes.fromhex(code))
    vmcb.save.cs.base = 0x1000
    vmcb.save.cs.attributes = {32: D32, 64: LONG}[bits]
    vmcb.save.efer = EFER.LMA if bits == 64 else 0
    found = decode.decode_at_rip(vmcb, ram)
    assert (found.length, found.register) == (length, register)


def test_what_cannot_be_read_is_no_instruction(vmcb, ram):
    vmcb.save.rip = 0x20000
    assert decode.decode_at_rip(vmcb, ram).mnemonic == Mnemonic.INVALID


def test_linear_addresses_wrap_outside_64_bit_code(vmcb, ram):
    ram.write(0x10, b"\xcc")
    vmcb.save.cs.base, vmcb.save.rip = 0xFFFF_FFF0, 0x20
    assert decode.decode_at_rip(vmcb, ram).mnemonic == Mnemonic.INT3


@pytest.mark.parametrize(
    ("rip", "bits", "behind"), [(0xFFFF_FFFF, 32, 1), (0xFFFF_FFFF, 64, 0x1_0000_0001), (7, 16, 9)]
)
def test_rip_wraps_at_32_bits_outside_64_bit_code(vmcb, rip, bits, behind):
    vmcb.save.rip, vmcb.save.efer = rip, EFER.LMA
    vmcb.save.cs.attributes = {16: 0, 32: D32, 64: LONG}[bits]
    assert decode.next_rip(vmcb, 2) == behind


@pytest.fixture
def paged(vmcb, ram):
    """Two pages of a legacy address space: 0x5000 at 0x8000, 0x6000 nowhere."""
    ram.write(0x1000, (0x2003).to_bytes(4, "little"))
    ram.write(0x2000 + 4 * 5, (0x8003).to_bytes(4, "little"))
    vmcb.save.cr0, vmcb.save.cr3, vmcb.save.cs.attributes = CR0.PE | CR0.PG, 0x1000, D32
    return vmcb


def test_an_instruction_may_end_at_the_last_mapped_byte(paged, ram):
    ram.write(0x8FFE, b"\xcd\x80")
    paged.save.rip = 0x5FFE
    assert decode.decode_at_rip(paged, ram)[:3] == (Mnemonic.INT, 2, 0x80)
    assert decode.read_linear(paged, ram, 0x5FFE, 15) == b"\xcd\x80"


def test_an_instruction_may_cross_pages(paged, ram):
    ram.write(0x2000 + 4 * 6, (0x3003).to_bytes(4, "little"))
    ram.write(0x8FFF, b"\xcd")
    ram.write(0x3000, b"\x21")
    paged.save.rip = 0x5FFF
    assert decode.decode_at_rip(paged, ram)[:3] == (Mnemonic.INT, 2, 0x21)


def test_tables_outside_the_memory_are_no_error(paged, ram):
    paged.save.cr3 = 0x4000_0000
    paged.save.cr4 = CR4.PSE
    assert decode.read_linear(paged, ram, 0x5000, 4) == b""
