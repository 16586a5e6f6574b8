import pytest

from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vmcb import SaveArea
from trapline.errors import FaultError
from trapline.machine import linear
from trapline.machine.scripted import ScriptedMemory

LONG, D32 = 1 << 9, 1 << 10


@pytest.fixture
def save():
    return SaveArea()


@pytest.fixture
def ram():
    return ScriptedMemory(0x10000)


def set_bits(save, bits):
    save.cs.attributes = {16: 0, 32: D32, 64: LONG}[bits]
    save.efer = EFER.LMA if bits == 64 else 0


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
def test_the_size_of_code(save, efer, attributes, bits):
    save.efer, save.cs.attributes = efer, attributes
    assert linear.code_bits(save) == bits


@pytest.mark.parametrize(
    ("bits", "base", "rip", "address"),
    [
        (16, 0x12340, 0x56, 0x12396),
        (32, 0xFFFF_FFF0, 0x20, 0x10),
        (64, 0x1000, 0xFFFF_8000_0000_0000, 0xFFFF_8000_0000_0000),
    ],
)
def test_the_address_of_the_instruction(save, bits, base, rip, address):
    set_bits(save, bits)
    save.cs.base, save.rip = base, rip
    assert linear.code_address(save) == address


@pytest.mark.parametrize(
    ("bits", "attributes", "address"),
    [(16, 0, 0x1_6789), (16, D32, 0x2346_6789), (32, 0, 0x1_6789), (64, 0, 0xFFFF_8000_2345_6789)],
)
def test_the_address_of_the_stack(save, bits, attributes, address):
    set_bits(save, bits)
    save.ss.base, save.ss.attributes, save.rsp = 0x1_0000, attributes, 0xFFFF_8000_2345_6789
    assert linear.stack_address(save) == address


@pytest.mark.parametrize(
    ("rip", "bits", "following"), [(0xFFFF_FFFF, 32, 1), (0xFFFF_FFFF, 64, 0x1_0000_0001), (7, 16, 9)]
)
def test_rip_wraps_at_32_bits_outside_64_bit_code(save, rip, bits, following):
    set_bits(save, bits)
    save.rip = rip
    assert linear.next_rip(save, 2) == following


@pytest.fixture
def paged(save, ram):
    """Two pages of a legacy address space: 0x5000 at 0x8000, 0x7000 where there is no memory; 0x6000 is not mapped."""
    ram.write(0x1000, (0x2003).to_bytes(4, "little"))
    ram.write(0x2000 + 4 * 5, (0x8003).to_bytes(4, "little"))
    ram.write(0x2000 + 4 * 7, (0x2_0003).to_bytes(4, "little"))
    save.cr0, save.cr3, save.cs.attributes = CR0.PE | CR0.PG, 0x1000, D32
    return save


def test_bytes_across_pages(paged, ram):
    ram.write(0x2000 + 4 * 6, (0x3003).to_bytes(4, "little"))
    linear.write_linear(paged, ram, 0x5FFE, b"abcd")
    assert (ram.read(0x8FFE, 2), ram.read(0x3000, 2)) == (b"ab", b"cd")
    assert linear.read_linear(paged, ram, 0x5FFE, 4) == b"abcd"


def test_a_page_that_is_not_mapped(paged, ram):
    ram.write(0x8FFE, b"ab")
    assert linear.read_mapped(paged, ram, 0x5FFE, 4) == b"ab"
    with pytest.raises(FaultError, match="cannot access 0x6000") as error:
        linear.read_linear(paged, ram, 0x5FFE, 4)
    assert error.value.address == 0x6000
    with pytest.raises(FaultError) as error:
        linear.write_linear(paged, ram, 0x5FFE, b"wxyz")
    assert error.value.address == 0x6000
    assert ram.read(0x8FFE, 2) == b"ab", "nothing is stored"


def test_a_page_without_memory(paged, ram):
    assert linear.translate(paged, ram, 0x7123) == 0x2_0123
    with pytest.raises(FaultError) as error:
        linear.read_linear(paged, ram, 0x7123, 1)
    assert error.value.address == 0x7123
    with pytest.raises(FaultError) as error:
        linear.write_linear(paged, ram, 0x7123, b"x")
    assert error.value.address == 0x7123


def test_a_read_only_page_is_written(paged, ram):
    ram.write(0x2000 + 4 * 5, (0x8001).to_bytes(4, "little"))
    linear.write_linear(paged, ram, 0x5000, b"x")
    assert ram.read(0x8000, 1) == b"x"


def test_tables_outside_the_memory(paged, ram):
    paged.cr3 = 0x4000_0000
    paged.cr4 = CR4.PSE
    assert linear.read_mapped(paged, ram, 0x5000, 4) == b""
    with pytest.raises(FaultError):
        linear.read_linear(paged, ram, 0x5000, 4)
