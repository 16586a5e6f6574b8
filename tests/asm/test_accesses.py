import pytest

from trapline.arch.registers import EFER, Gprs
from trapline.arch.vmcb import SaveArea
from trapline.asm.accesses import accesses_at_rip, accesses_of, moves_operand
from trapline.asm.decoder import new_decoder
from trapline.machine.scripted import ScriptedMemory

LONG, D32 = 1 << 9, 1 << 10
CODE = 0x4000


@pytest.fixture
def accesses():
    """Return a function that tells what machine code accesses, as (address, size)."""

    def accesses(code, bits=32, **values):
        save, gprs, memory = SaveArea(), Gprs(), ScriptedMemory(0x1_0000)
        save.cs.attributes = {16: 0, 32: D32, 64: LONG}[bits]
        save.efer = EFER.LMA if bits == 64 else 0
        save.rip = CODE
        gprs.rbx, gprs.rsi, gprs.rdi, save.rsp = 0x1000, 0x2000, 0x3000, 0x7000
        for name, value in values.items():
            if name.endswith("_base"):
                getattr(save, name[:2]).base = value
            else:
                setattr(save if name in ("rax", "rsp") else gprs, name, value)
        memory.write(CODE, bytes.fromhex(code))
        return [(one.gva, one.size) for one in accesses_at_rip(save, gprs, memory)]

    return accesses


@pytest.fixture
def decoded():
    """Return a function that decodes 32-bit code."""
    return lambda code: new_decoder(bytes.fromhex(code), 32, CODE).decode()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("90", []),
        ("8d03", []),  # LEA
        ("8903", [(0x1000, 4)]),  # MOV [EBX], EAX
        ("66894308", [(0x1008, 2)]),
        ("8a43ff", [(0xFFF, 1)]),
        ("8b04b3", [(0x9000, 4)]),  # MOV EAX, [EBX + ESI * 4]
        ("0f2903", [(0x1000, 16)]),
        ("50", [(0x6FFC, 4)]),  # PUSH
        ("58", [(0x7000, 4)]),  # POP
        ("ff33", [(0x1000, 4), (0x6FFC, 4)]),  # PUSH [EBX]
        ("a4", [(0x3000, 1), (0x2000, 1)]),
        ("f3a5", [(0x3000, 4), (0x2000, 4)]),
        ("d7", [(0x1012, 1)]),  # XLATB
        ("0fae03", [(0x1000, 512)]),  # FXSAVE
        ("8b83000000f0", [(0xF000_1000, 4)]),
        ("0fae23", [(0x1000, 0)]),  # XSAVE
    ],
)
def test_operands(accesses, code, found):
    assert accesses(code, rax=0x12) == found


def test_segments_and_wrapping(accesses):
    assert accesses("8903", ds_base=0xFFFF_FF00) == [(0xF00, 4)]
    assert accesses("648903", ds_base=0x10_0000, fs_base=0x20_0000) == [(0x20_1000, 4)]
    assert accesses("8907", 16, rbx=0x1_2345, ds_base=0xF_0000) == [(0xF_2345, 2)]
    assert accesses("50", 16, rsp=0x1_0000, ss_base=0x5_0000) == [(0x5_FFFE, 2)]


@pytest.mark.parametrize(
    ("code", "writes"),
    [("8903", [True]), ("8b03", [False]), ("ff03", [True]), ("f00fb10b", [True]), ("a4", [True, False])],
)
def test_what_it_may_write(decoded, code, writes):
    assert [one.writes for one in accesses_of(decoded(code), SaveArea(), Gprs())] == writes


@pytest.mark.parametrize(
    ("code", "moves"),
    [("8b03", False), ("8b1b", True), ("8a1b", True), ("50", True), ("a4", True), ("875d00", False), ("876d00", True)],
)
def test_an_operand_that_moves(decoded, code, moves):
    assert moves_operand(decoded(code)) == moves


def test_64_bit_code(accesses):
    high = 0xFFFF_8000_0000_0000
    assert accesses("8903", 64, rbx=high, ds_base=5) == [(high, 4)]
    assert accesses("658903", 64, rbx=8, gs_base=high) == [(high + 8, 4)]
    assert accesses("488b0510000000", 64) == [(CODE + 0x17, 8)]
    assert accesses("678903", 64, rbx=high + 0x1234) == [(0x1234, 4)]
    assert accesses("4c890424", 64, rsp=0x7008) == [(0x7008, 8)]
    assert accesses("4389442201", 64, r10=0x100, r12=0x40) == [(0x141, 4)]
