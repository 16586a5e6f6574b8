import struct

import iced_x86 as iced
import pytest

from trapline.arch.registers import EFER
from trapline.errors import FaultError, UsageError
from trapline.machine.processor import Outcome
from trapline.processors.qemu import firmware, firmware_entry, layout, pci
from trapline.processors.qemu.launch import open_qemu

TOP = 1 << 32
ENTRY_SIZE = 0x10000
M, R = iced.Mnemonic, iced.Register


@pytest.fixture(params=["svm", "unlock", "uefi"])
def wrapped(request, bios, uefi):
    if request.param == "uefi":
        return firmware.wrap(uefi, unlock_svm=True, flash=True)
    return firmware.wrap(bios, unlock_svm=request.param == "unlock")


@pytest.fixture
def rom(wrapped):
    """Return a function that reads the image where QEMU puts it: below 4 GiB."""
    base = TOP - len(wrapped.image)

    def rom(gpa, size):
        if not base <= gpa <= gpa + size <= TOP:
            raise FaultError(gpa)
        return wrapped.image[gpa - base : gpa - base + size]

    return rom


def protected_mode_entry(wrapped, until_jump):
    (hole, _), _ = wrapped.patches
    offset = hole - (len(wrapped.bios) - 0x10000)
    return until_jump(wrapped.patches[0][1], 16, offset)


def test_the_firmware_is_at_the_end_as_it_came_but_for_the_patches(wrapped):
    below = len(wrapped.image) - len(wrapped.bios)
    assert below == (0 if wrapped.uefi else ENTRY_SIZE)
    shown = bytearray(wrapped.image[below:])
    for offset, data in wrapped.patches:
        assert shown[offset : offset + len(data)] == data
        shown[offset : offset + len(data)] = wrapped.bios[offset : offset + len(data)]
    assert shown == wrapped.bios


def test_a_hole_and_the_reset_vector_alone_are_patched(wrapped):
    (hole, ours), (reset, jump) = wrapped.patches
    assert wrapped.bios[hole : hole + len(ours)] == (b"\xff" if wrapped.uefi else b"\0") * len(ours)
    assert (reset, len(jump)) == (len(wrapped.bios) - 16, 3)
    assert len(ours) <= 40 + wrapped.uefi * firmware_entry.SIZE


def test_the_reset_vector_jumps_to_the_trampoline(wrapped, decode):
    (hole, _), (_, jump) = wrapped.patches
    (instruction,) = decode(jump, 16, 0xFFF0)
    assert instruction.near_branch_target == hole - (len(wrapped.bios) - 0x10000)


def test_the_trampoline_loads_our_gdt_and_leaves_real_mode(wrapped, rom, until_jump):
    instructions = protected_mode_entry(wrapped, until_jump)
    lgdt, jump = instructions[0], instructions[-1]
    assert (lgdt.mnemonic, lgdt.segment_prefix) == (M.LGDT, R.CS)
    segment = TOP - 0x10000
    limit, gdt = struct.unpack("<HI", rom(segment + lgdt.memory_displacement, 6))
    assert struct.unpack("<4Q", rom(gdt, limit + 1)) == firmware_entry.DESCRIPTORS
    assert (jump.far_branch_selector, limit) == (firmware_entry.CODE32, 31)
    assert [one.mnemonic for one in instructions[1:-1]] == [M.MOV, M.OR, M.MOV]


def test_protected_mode_maps_the_memory_and_enters_long_mode(wrapped, rom, until_jump):
    entry = protected_mode_entry(wrapped, until_jump)[-1].far_branch32
    instructions = until_jump(rom(entry, 0x300), 32, entry)
    written, port, value = [], None, None
    for one in instructions:
        if one.mnemonic == M.MOV and one.op1_kind == iced.OpKind.IMMEDIATE16:
            port = one.immediate(1)
        elif one.mnemonic == M.MOV and one.op0_register == R.EAX:
            value = one.immediate(1) if one.op1_kind == iced.OpKind.IMMEDIATE32 else one.op1_register
        elif one.mnemonic == M.OUT:
            written.append((port, value))
    config = [value for port, value in written if port == pci.CONFIG_ADDRESS]
    low, high, command = pci.BAR2, pci.BAR2 + 4, pci.COMMAND
    assert config == [pci.address(pci.MONITOR_DEVICE, register) for register in (low, high, command, high, low)]
    data = [value for port, value in written if port == pci.CONFIG_DATA]
    assert data == [layout.LOW_BASE, 0, pci.MEMORY_ENABLE, R.EBX, 0]
    assert [port for port, _ in written].count(layout.DOORBELL_PORT) == 1
    assert instructions[-1].far_branch_selector == firmware_entry.CODE64


@pytest.fixture
def parts():
    """Return a function that returns the 32-bit code of the entry, and the 64-bit code."""

    def parts(*, unlock_svm):
        entry = firmware_entry.entry(0, unlock_svm=unlock_svm)
        return entry[firmware_entry.CODE32_AT : firmware_entry.CODE64_AT], entry[firmware_entry.CODE64_AT :]

    return parts


def test_svm_is_set_by_wrmsr_or_without_asking_cpuid(parts, until_jump):
    set_bits = {}
    for unlock in (False, True):
        code = until_jump(parts(unlock_svm=unlock)[0], 32, 0)
        wrmsr = next(place for place, one in enumerate(code) if one.mnemonic == M.WRMSR)
        set_bits[unlock] = code[wrmsr - 1].immediate(1)
    assert set_bits == {False: EFER.LME | EFER.SVME, True: EFER.LME}


def test_an_init_is_told_from_a_reset_before_anything_is_done(parts, until_jump):
    code = until_jump(parts(unlock_svm=True)[0], 32, 0)
    mnemonics = [one.mnemonic for one in code]
    assert mnemonics.index(M.RDMSR) < mnemonics.index(M.INT3) < mnemonics.index(M.OUT)
    operand = code[mnemonics.index(M.LIDT)].memory_displacement
    assert firmware_entry.entry(0, unlock_svm=True)[operand : operand + 6] == bytes(6)


def test_the_smm_handler_sets_svme_in_the_saved_efer(parts, until_jump):
    code = until_jump(parts(unlock_svm=True)[1], 64, 0)
    immediates = (iced.OpKind.IMMEDIATE64, iced.OpKind.IMMEDIATE32TO64)
    loads = [one for one in code if one.op_count == 2 and one.op1_kind in immediates]
    place = next(place for place, one in enumerate(loads) if one.op0_register == R.RDI and one.immediate(1) == 0x38000)
    handler = loads[place + 1].immediate(1).to_bytes(8, "little")
    first, second = list(iced.Decoder(16, handler, ip=0x8000))[:2]
    assert (first.mnemonic, first.segment_prefix, first.immediate(1)) == (M.OR, R.CS, EFER.SVME >> 8)
    assert first.memory_displacement == 0xFED0 + 1
    assert second.mnemonic == M.RSM


@pytest.mark.parametrize("unlock", [False, True])
def test_long_mode_ends_in_the_monitor(parts, until_jump, unlock):
    code = until_jump(parts(unlock_svm=unlock)[1], 64, 0)
    assert code[-1].op0_register == R.RAX
    assert (code[-2].mnemonic, code[-2].memory_base, code[-2].memory_displacement) == (M.LEA, R.RBX, layout.CODE_AT)
    assert (code[-3].op0_register, code[-3].op1_register) == (R.ESI, R.EBP)  # the CPU's signature


def test_the_first_jump_of_the_bios_is_known(wrapped, bios_with):
    assert wrapped.start == (None if wrapped.uefi else (0xF000, 0xE05B))
    near = firmware.wrap(bios_with(first=b"\xe9\x00\x10"), unlock_svm=True)
    assert near.start is None


def test_a_bios_is_shadowed_and_the_end_of_uefi_firmware(wrapped, bios, uefi):
    assert wrapped.shadow == (uefi[-0x20000:] if wrapped.uefi else bios)


@pytest.mark.parametrize("size", [0x10000, 0x20000, 0x40000, 0x100000])
def test_images_of_all_usual_sizes_can_be_wrapped(bios_with, size):
    bios = bios_with(size, hole=(size - 0x4000, size - 0x3F00))
    assert len(firmware.wrap(bios, unlock_svm=True).image) == size + ENTRY_SIZE


@pytest.mark.parametrize(
    ("image", "flash", "words"),
    [
        (b"", False, "0 bytes"),
        (bytes(0x8000), False, "a PC BIOS is a multiple of 64 KiB"),
        (bytes(0x10001), False, "a PC BIOS is a multiple of 64 KiB"),
        (bytes(0x10001), True, "flash is a multiple of 4 KiB"),
        (bytes(0x8000), True, "flash is a multiple of 4 KiB"),
        (bytes(0x28) + b"_FVH" + bytes(0xFFD4), False, "no hole of"),
        (bytes(0x11_0000), False, "firmware of 1.0625 MiB: a PC BIOS has 1 MiB at most"),
        (b"\x01" * 0x10000, False, "no hole of"),
        (bytes(0x10000) + b"\x01" * 0x10000, False, "no hole of"),
        (b"\xff" * 0x10000 + b"\x01" * 0x10000, True, "no hole of"),
        (b"\xff" * 0x10000, True, "its last 16 bytes are empty"),
    ],
)
def test_what_cannot_be_the_firmware_of_a_pc_is_refused_in_words(image, flash, words):
    with pytest.raises(UsageError, match=words):
        firmware.wrap(image, unlock_svm=True, flash=flash)


@pytest.mark.qemu
def test_a_reset_leaves_the_ram_that_the_entry_borrows_as_it_was():
    ram = range(layout.ENTRY_TABLES_RAM - 8, layout.ENTRY_TABLES_RAM + layout.ENTRY_TABLES_SIZE + 8)
    with open_qemu(guest=["-nodefaults"], memory=16 << 20) as processor:
        assert processor.run(None) is Outcome.RESET
        assert processor.memory.read(ram.start, len(ram)) == bytes(len(ram))
        content = bytes(number % 251 for number in ram)
        processor.memory.write(ram.start, content)
        processor.memory.write(layout.TOKEN_AT, b"guest's.")
        processor.shutdown()
        assert processor.run(None) is Outcome.RESET
        assert processor.memory.read(ram.start, len(ram)) == content
        assert processor.memory.read(layout.TOKEN_AT, 8) == b"guest's."
