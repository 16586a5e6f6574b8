import iced_x86 as iced
import pytest

from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import (
    AL,
    AX,
    CS,
    DS,
    DX,
    EAX,
    ECX,
    R15,
    RAX,
    RBX,
    RCX,
    RDX,
    RSP,
    Mem,
    Reg,
)
from trapline.guests.samples import SAMPLES
from trapline.processors.qemu import firmware
from trapline.processors.qemu.monitor import monitor

ADDRESS = 0x10_0000


def one(bits, mnemonic, *operands, address=ADDRESS):
    code = Assembler(bits)
    getattr(code, mnemonic)(*operands)
    return code.assemble(address)


# Written by hand from the manual's opcode tables (APM 3).
GOLDEN = [
    (64, "vmrun", (), "0f01d8"),
    (64, "vmload", (), "0f01da"),
    (64, "vmsave", (), "0f01db"),
    (64, "stgi", (), "0f01dc"),
    (64, "clgi", (), "0f01dd"),
    (64, "pause", (), "f390"),
    (64, "int3", (), "cc"),
    (64, "iretq", (), "48cf"),
    (64, "rdtsc", (), "0f31"),
    (16, "nop", (), "90"),
    (32, "nop", (), "90"),
    (64, "nop", (), "90"),
    (16, "push", (0x1234,), "683412"),
    (32, "push", (0x20,), "6820000000"),
    (64, "push", (0x20,), "6820000000"),
    (64, "push", (0x80,), "6880000000"),
    (16, "ret", (), "c3"),
    (32, "ret", (), "c3"),
    (64, "ret", (), "c3"),
    (64, "wrmsr", (), "0f30"),
    (64, "out", (DX, EAX), "ef"),
    (64, "out", (DX, AL), "ee"),
    (64, "in_", (EAX, DX), "ed"),
    (64, "mov", (RCX, operands.CR0), "0f20c1"),
    (64, "mov", (operands.CR3, RAX), "0f22d8"),
    (64, "mov", (RAX, Mem(RSP)), "488b0424"),
    (64, "mov", (RAX, Mem(RSP, 8)), "488b442408"),
    (64, "mov", (Mem(RBX, 0x10), DX), "66895310"),
    (64, "mov", (EAX, Mem(RAX, -8, index=RCX, scale=8)), "8b44c8f8"),
    (64, "mov", (RAX, 0x80_0000_0000), "48b80000000080000000"),
    (64, "jmp", (RAX,), "ffe0"),
    (64, "inc", (Mem(R15, size=64),), "49ff07"),
    (32, "mov", (DS, AX), "668ed8"),
    (16, "rsm", (), "0faa"),
    (16, "lgdt", (Mem(None, 0x1234, segment=CS, size=32),), "2e660f01163412"),
]


@pytest.mark.parametrize(("bits", "mnemonic", "operands", "expected"), GOLDEN)
def test_known_encodings(bits, mnemonic, operands, expected):
    assert one(bits, mnemonic, *operands).hex() == expected


def emitted(build):
    """Return every (bits, mnemonic, operands) that `build` emits, once."""
    forms = {}
    original = Assembler._emit

    def note(self, mnemonic, operands):
        forms[self._bits, mnemonic, operands] = None
        original(self, mnemonic, operands)

    Assembler._emit = note
    try:
        build()
    finally:
        Assembler._emit = original
    return list(forms)


def everything():
    bios = bytes(0x10000)
    monitor.build()
    firmware.wrap(bios, unlock_svm=True)
    firmware.wrap(bios, unlock_svm=False)
    for sample in SAMPLES:
        sample.build()


USED = emitted(everything)


def agrees(instruction, place, operand):
    kind = instruction.op_kind(place)
    if isinstance(operand, Reg):
        return kind == iced.OpKind.REGISTER and instruction.op_register(place) == operand.number
    if isinstance(operand, Mem):
        base = operand.base.number if operand.base else iced.Register.NONE
        index = operand.index.number if operand.index else iced.Register.NONE
        address_bits = 8 * (iced.RegisterExt.size(base) or iced.RegisterExt.size(index) or 8)
        segment = operand.segment.number if operand.segment else iced.Register.NONE
        width = iced.MemorySizeExt.size(instruction.memory_size) * 8
        if instruction.mnemonic in (iced.Mnemonic.LGDT, iced.Mnemonic.LIDT):
            width = operand.size  # their operand's size is not the table register's
        return (
            kind == iced.OpKind.MEMORY
            and (instruction.memory_base, instruction.memory_index) == (base, index)
            and (index == iced.Register.NONE or instruction.memory_index_scale == operand.scale)
            and instruction.segment_prefix == segment
            and (instruction.memory_displacement - operand.displacement) % (1 << address_bits) == 0
            and operand.size in (None, width)
        )
    if isinstance(operand, str):
        return ADDRESS in (instruction.near_branch_target, instruction.immediate(place) if place else None)
    # Without a register, a size of the memory operand or a wider one decides how many bits of it there are.
    registers = [instruction.op_register(0)] if instruction.op0_kind == iced.OpKind.REGISTER else []
    width = 8 * max([iced.RegisterExt.size(register) for register in registers] or [4])
    return (instruction.immediate(place) - operand) % (1 << width) == 0


@pytest.mark.parametrize(
    ("bits", "mnemonic", "operands"), USED, ids=[f"{name}-{place}" for place, (_, name, _) in enumerate(USED)]
)
def test_every_form_in_use_decodes_to_what_was_asked_for(decode, bits, mnemonic, operands):
    code = Assembler(bits)
    for operand in operands:
        if isinstance(operand, str):
            code.label(operand)
    getattr(code, mnemonic if hasattr(code, mnemonic) else mnemonic + "_")(*operands)
    (instruction,) = decode(code.assemble(ADDRESS), bits, ADDRESS)
    names = {value: name.lower() for name, value in vars(iced.Mnemonic).items() if isinstance(value, int)}
    assert names[instruction.mnemonic] == mnemonic
    assert instruction.op_count == len(operands)
    for place, operand in enumerate(operands):
        assert agrees(instruction, place, operand), f"{instruction}: operand {place} is not {operand}"


def test_the_list_of_forms_is_not_empty():
    assert len(USED) > 150
    assert {bits for bits, _, _ in USED} == {16, 32, 64}


def test_labels_are_seen_from_both_sides(decode):
    code = Assembler(64)
    code.label("start")
    code.jne("end")
    for _ in range(200):
        code.nop()
    code.jmp("start")
    code.label("end")
    code.int3()
    blob = code.assemble(ADDRESS)
    instructions = decode(blob, 64, ADDRESS)
    labels = code.labels(ADDRESS)
    assert labels == {"start": ADDRESS, "end": ADDRESS + len(blob) - 1}
    assert instructions[0].near_branch_target == labels["end"]
    assert instructions[-2].near_branch_target == labels["start"]


def test_the_code_may_move():
    code = monitor.build()
    low, high = 0x1000, 0x80_0000_4000
    assert {name: place - low for name, place in code.labels(low).items()} == {
        name: place - high for name, place in code.labels(high).items()
    }


def test_a_far_jump_names_selector_and_offset(decode):
    for bits in (16, 32):
        code = Assembler(bits)
        code.far_jump(0x18, 0xFFFE_5000)
        (jump,) = decode(code.assemble(0x100), bits, 0x100)
        assert (jump.far_branch_selector, jump.far_branch32) == (0x18, 0xFFFE_5000)


@pytest.mark.parametrize(("bits", "register", "start"), [(32, EAX, "b8"), (64, EAX, "b8"), (64, RAX, "48b8")])
def test_the_address_of_a_label_is_an_immediate(bits, register, start):
    code = Assembler(bits)
    code.mov(register, "there")
    code.nop()
    code.label("there")
    code.hlt()
    blob = code.assemble(ADDRESS)
    there = ADDRESS + len(blob) - 1
    assert code.labels(ADDRESS) == {"there": there}
    width = len(blob) - len(start) // 2 - 2
    assert blob.hex() == start + there.to_bytes(width, "little").hex() + "90f4"
    assert width in (4, 8)


def test_a_label_stands_once():
    code = Assembler(64)
    code.label("here")
    with pytest.raises(ValueError, match="label here is defined twice"):
        code.label("here")


def test_a_branch_needs_its_label():
    code = Assembler(64)
    code.jmp("nowhere")
    with pytest.raises(ValueError, match="no label nowhere"):
        code.assemble(0)


@pytest.mark.parametrize(
    ("bits", "mnemonic", "operands"),
    [
        (64, "mov", (RAX, EAX)),
        (64, "mov", (AL, 0x100)),
        (64, "inc", (Mem(RAX, size=128),)),
        (64, "vmrun", (RAX,)),
        (32, "iretq", ()),
        (64, "out", (DX, RDX)),
        (64, "bt", (ECX, 0x1FF)),
    ],
)
def test_operands_that_no_encoding_takes_are_refused(bits, mnemonic, operands):
    with pytest.raises(ValueError, match=f"no encoding in {bits}-bit code: {mnemonic}"):
        one(bits, mnemonic, *operands)


@pytest.mark.parametrize("name", ["vmfly", "_private", "deepcopy"])
def test_what_is_no_mnemonic_is_no_method(name):
    with pytest.raises(AttributeError, match=name):
        getattr(Assembler(64), name)
