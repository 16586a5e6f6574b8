import struct

import pytest

from trapline.arch import address_space, paging
from trapline.arch.layout import offset_of
from trapline.arch.registers import CR0, CR4, EFER
from trapline.errors import FaultError
from trapline.processors.qemu import firmware_entry, tables
from trapline.processors.qemu.layout import (
    ENTRY_TABLES_AT,
    ENTRY_TABLES_RAM,
    ENTRY_TABLES_SIZE,
    LOW_BASE,
    PML4_AT,
    SIZE,
    TABLES_AT,
    Tables,
    base_for,
)

HANDLER = 0x80_0000_4321


@pytest.fixture(params=[33, 36, 39, 40])
def base(request):
    return base_for(request.param)


@pytest.fixture
def written(memory, base):
    tables.write(memory, base, nmi_handler=HANDLER)
    return memory


@pytest.fixture
def translate(written, base):
    def read(gpa, size):
        if not base <= gpa <= gpa + size <= base + SIZE:
            raise FaultError(gpa)
        return bytes(written[gpa - base : gpa - base + size])

    return lambda gva: address_space.walk(read, CR0.PG, base + PML4_AT, CR4.PAE, EFER.LMA, gva)


@pytest.mark.parametrize("offset", [0, 0x4321, SIZE - 1])
def test_the_shared_memory_is_mapped_at_its_own_address(translate, base, offset):
    assert translate(base + offset) == base + offset


def test_the_memory_below_is_mapped_at_its_own_address(translate, base):
    for gva in (0, 0xFFFF_FFF0, base - 1):
        assert translate(gva) == gva


@pytest.mark.parametrize("gva", [0, 0x7C00, 0x1234_5678, LOW_BASE, 0xFFFF_FFF0])
def test_those_of_the_firmware_map_the_same_and_lie_in_ram(written, base, gva):
    def read(gpa, size):
        if not ENTRY_TABLES_RAM <= gpa <= gpa + size <= ENTRY_TABLES_RAM + ENTRY_TABLES_SIZE:
            raise FaultError(gpa)
        start = gpa - ENTRY_TABLES_RAM + ENTRY_TABLES_AT
        return bytes(written[start : start + size])

    for address in (gva, base + gva % SIZE):
        assert address_space.walk(read, CR0.PG, ENTRY_TABLES_RAM, CR4.PAE, EFER.LMA, address) == address


@pytest.mark.parametrize("offset", [1 << 30, 1 << 39])
def test_nothing_else_is_mapped(translate, base, offset):
    with pytest.raises(paging.NotMapped):
        translate(base + offset)


@pytest.fixture
def operand(written, base):
    def operand(name):
        limit, start = struct.unpack_from("<HQ", written, TABLES_AT + offset_of(Tables, name))
        return bytes(written[start - base : start - base + limit + 1])

    return operand


def test_the_operands_lead_to_the_tables(operand):
    assert struct.unpack("<4Q", operand("gdt_operand")) == firmware_entry.DESCRIPTORS
    assert len(operand("idt_operand")) == 3 * 16
    assert operand("null_idt_operand") == b"\0"  # too short for any gate


def test_only_an_nmi_has_a_gate(operand):
    idt = operand("idt_operand")
    assert not any(idt[:32])
    low, selector, attributes, middle, high, reserved = struct.unpack("<HHHHII", idt[32:])
    assert low | middle << 16 | high << 32 == HANDLER
    assert (selector, attributes, reserved) == (firmware_entry.CODE64, 0x8E00, 0)
    assert firmware_entry.DESCRIPTORS[selector // 8] >> 53 & 1  # 64-bit code


def test_nothing_is_written_beyond_its_page(written, base):
    pages = {place & ~0xFFF for place in range(0, 0x20000, 8) if any(written[place : place + 8])}
    tables = {start + page for start in (PML4_AT, ENTRY_TABLES_AT) for page in range(0, ENTRY_TABLES_SIZE, 0x1000)}
    assert pages == {TABLES_AT} | tables
