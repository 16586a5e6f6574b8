import pytest

from trapline.arch.registers import CR0, EFER
from trapline.arch.vmcb import SaveArea
from trapline.asm import decoder
from trapline.asm.decoder import Mnemonic
from trapline.machine.scripted import ScriptedMemory

LONG, D32 = 1 << 9, 1 << 10


@pytest.fixture
def save():
    return SaveArea()


@pytest.fixture
def ram():
    return ScriptedMemory(0x10000)


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
def test_instructions(save, ram, code, bits, mnemonic, length, immediate, writes_control):
    ram.write(0x1234, bytes.fromhex(code))
    save.rip = 0x1234
    save.cs.attributes = {16: 0, 32: D32, 64: LONG}[bits]
    save.efer = EFER.LMA if bits == 64 else 0
    found = decoder.decode_at_rip(save, ram)
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
def test_the_general_register_of_a_mov(save, ram, code, bits, length, register):
    ram.write(0x1000, bytes.fromhex(code))
    save.rip = 0x1000
    save.cs.attributes = {32: D32, 64: LONG}[bits]
    save.efer = EFER.LMA if bits == 64 else 0
    found = decoder.decode_at_rip(save, ram)
    assert (found.length, found.register) == (length, register)


def test_the_operand_size_prefix_of_a_near_jump_counts_in_64_bit_code():
    """AMD takes two bytes of offset behind 66 E9, Intel four."""
    assert decoder.new_decoder(bytes.fromhex("66e9010203040506"), 64).decode().len == 4


def test_what_cannot_be_read_is_no_instruction(save, ram):
    save.rip = 0x20000
    assert decoder.decode_at_rip(save, ram).mnemonic == Mnemonic.INVALID


@pytest.fixture
def paged(save, ram):
    """One page of a legacy address space: 0x5000 at 0x8000."""
    ram.write(0x1000, (0x2003).to_bytes(4, "little"))
    ram.write(0x2000 + 4 * 5, (0x8003).to_bytes(4, "little"))
    save.cr0, save.cr3, save.cs.attributes = CR0.PE | CR0.PG, 0x1000, D32
    return save


def test_an_instruction_may_end_at_the_last_mapped_byte(paged, ram):
    ram.write(0x8FFE, b"\xcd\x80")
    paged.rip = 0x5FFE
    assert decoder.decode_at_rip(paged, ram)[:3] == (Mnemonic.INT, 2, 0x80)


def test_an_instruction_may_cross_pages(paged, ram):
    ram.write(0x2000 + 4 * 6, (0x3003).to_bytes(4, "little"))
    ram.write(0x8FFF, b"\xcd")
    ram.write(0x3000, b"\x21")
    paged.rip = 0x5FFF
    assert decoder.decode_at_rip(paged, ram)[:3] == (Mnemonic.INT, 2, 0x21)


@pytest.mark.parametrize(
    ("code", "bits", "address", "target"),
    [
        ("ebfe", 16, 0x2_0100, 0x2_0100),
        ("e9f000", 16, 0x2_FF80, 0x3_0073),
        ("75f0", 16, 0x2_0004, 0x1_FFF6),
        ("66e9f0000000", 16, 0x2_0000, 0x2_00F6),
        ("e8f0000000", 32, 0x12_0000, 0x12_00F5),
        ("ebfe", 64, 0xFFFF_8000_0000_0000, 0xFFFF_8000_0000_0000),
    ],
)
def test_where_a_branch_leads(code, bits, address, target):
    assert decoder.branch_target(decoder.new_decoder(bytes.fromhex(code), bits, address).decode()) == target
