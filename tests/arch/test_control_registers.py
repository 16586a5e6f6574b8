import pytest

from trapline.arch.control_registers import refuses_cr0, refuses_cr3, refuses_cr4, supported_cr4, write_cr0
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vmcb import Vmcb

LONG = EFER.LME | EFER.LMA
ON = CR0.PE | CR0.PG | CR0.WP | CR0.ET
ALL = (1 << 24) - 1


@pytest.fixture
def save():
    return Vmcb().save


@pytest.mark.parametrize(
    ("value", "wide", "before", "refused"),
    [
        (CR0.PE | CR0.ET, False, {}, False),
        (0x1FFA_FFC0, False, {}, False),  # reserved bits of the low half are ignored
        (ON, False, {}, False),
        (CR0.PG, False, {}, True),
        (CR0.PE | CR0.NW, False, {}, True),
        (CR0.PE | CR0.NW | CR0.CD, False, {}, False),
        (ON, False, {"efer": EFER.LME}, True),
        (ON, False, {"efer": EFER.LME, "cr4": CR4.PAE}, False),
        (ON, False, {"efer": LONG, "cr0": ON}, False),
        (CR0.PE, False, {"efer": LONG, "cr0": ON, "cr4": CR4.PAE}, False),  # long mode is left
        (CR0.PE, True, {"efer": LONG, "cr0": ON, "cr4": CR4.PAE}, True),
        (CR0.PE, False, {"efer": LONG, "cr0": ON, "cr4": CR4.PAE | CR4.PCIDE}, True),
        (ON | 1 << 32, True, {"efer": LONG, "cr0": ON}, True),
        (CR0.PE | CR0.PG, False, {"cr0": ON, "cr4": CR4.CET}, True),
    ],
)
def test_cr0(save, value, wide, before, refused):
    for name, content in before.items():
        setattr(save, name, content)
    assert refuses_cr0(save, value, wide=wide) is refused


@pytest.mark.parametrize(
    ("value", "efer", "cr4", "refused"),
    [
        (0x1018, LONG, 0, False),
        ((1 << 40) - 1, LONG, 0, False),
        (1 << 40, LONG, 0, True),
        (1 << 63, LONG, 0, True),
        (1 << 63, LONG, CR4.PCIDE, False),
        (1 << 62, LONG, CR4.PCIDE, True),
        (0xFFFF_FFFF, 0, CR4.PAE, False),
    ],
)
def test_cr3(save, value, efer, cr4, refused):
    save.efer, save.cr4 = efer, cr4
    assert refuses_cr3(save, value, 40) is refused


@pytest.mark.parametrize(
    ("value", "before", "refused"),
    [
        (CR4.PSE | CR4.PAE, {}, False),
        (CR4.PSE | 1 << 19, {}, True),
        (1 << 32, {}, True),
        (CR4.PAE, {"efer": LONG}, False),
        (CR4.PGE, {"efer": LONG}, True),
        (CR4.PAE | CR4.LA57, {"efer": LONG}, True),
        (CR4.PAE | CR4.LA57, {"efer": LONG, "cr4": CR4.LA57}, False),
        (CR4.LA57, {}, False),
        (CR4.PAE | CR4.PCIDE, {"efer": LONG, "cr3": 0x1000}, False),
        (CR4.PAE | CR4.PCIDE, {"efer": LONG, "cr3": 0x1008}, True),
        (CR4.PAE | CR4.PCIDE, {"efer": LONG, "cr3": 0x1008, "cr4": CR4.PCIDE}, False),
        (CR4.PCIDE, {}, True),
        (CR4.CET, {}, True),
        (CR4.CET, {"cr0": ON}, False),
    ],
)
def test_cr4(save, value, before, refused):
    for name, content in before.items():
        setattr(save, name, content)
    assert refuses_cr4(save, value, ALL & ~(1 << 19)) is refused


def test_what_cr4_has_is_what_cpuid_says():
    answers = {(1, 0): (0, 0, 1 << 26, 1 << 6 | 1 << 24), (7, 0): (0, 1 << 7, 0, 0)}
    supported = supported_cr4(lambda function, sub: answers[function, sub])
    assert supported == CR4.PAE | CR4.OSFXSR | CR4.OSXSAVE | CR4.SMEP | CR4.PCE
    assert supported_cr4(lambda function, sub: (0, 0, 0, 0)) == CR4.PCE
    assert supported_cr4(lambda function, sub: (0, -1, -1, -1)) & 0xFFFF_F000 == 0x1F7_1000


def test_efer_lma_echoes_paging(save):
    save.efer = EFER.LME
    write_cr0(save, CR0.PE | CR0.PG)
    assert (save.cr0, save.efer) == (CR0.PE | CR0.PG | CR0.ET, LONG)
    write_cr0(save, CR0.PE)
    assert (save.cr0, save.efer) == (CR0.PE | CR0.ET, EFER.LME)
