import pytest

from trapline.arch.layout import size_of
from trapline.arch.registers import CR0, EFER, RFLAGS, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.processors.unicorn.calls import syscall, sysenter

AT = 0x1_0000_1000
AFTER = AT + 2


@pytest.fixture
def save():
    save = SaveArea.from_buffer(bytearray(size_of(SaveArea)))
    save.efer, save.cr0, save.cpl = EFER.SCE | EFER.LME | EFER.LMA, CR0.PE, 3
    save.cs.attributes = 0xAFB
    save.rip, save.rflags = AT, RFLAGS.ALWAYS_ONE | RFLAGS.IF | RFLAGS.TF | RFLAGS.RF
    save.star, save.lstar, save.cstar = 0x0023_0010_8000_1234, 0xFFFF_8000_0000_1000, 0x2000
    save.sfmask = RFLAGS.IF
    return save


@pytest.fixture
def gprs():
    return Gprs.from_buffer(bytearray(size_of(Gprs)))


def test_syscall_of_64_bit_code(save, gprs):
    assert syscall(save, gprs) is None
    assert (gprs.rcx, gprs.r11) == (AFTER, RFLAGS.ALWAYS_ONE | RFLAGS.IF | RFLAGS.TF)
    assert (save.rip, save.rflags, save.cpl) == (0xFFFF_8000_0000_1000, RFLAGS.ALWAYS_ONE | RFLAGS.TF, 0)
    assert (save.cs.selector, save.cs.attributes, save.cs.base) == (0x10, 0xA9B, 0)
    assert (save.ss.selector, save.ss.attributes, save.ss.limit) == (0x18, 0xC93, 0xFFFF_FFFF)


def test_syscall_of_compatibility_code_has_an_entry_of_its_own(save, gprs):
    save.cs.attributes = 0xCFB
    assert syscall(save, gprs) is None
    assert save.rip == 0x2000


def test_syscall_outside_long_mode(save, gprs):
    save.efer = EFER.SCE
    assert syscall(save, gprs) is None
    assert (save.rip, gprs.rcx, gprs.r11) == (0x8000_1234, AFTER & 0xFFFF_FFFF, 0)
    assert save.rflags == RFLAGS.ALWAYS_ONE | RFLAGS.TF
    assert (save.cs.selector, save.cs.attributes, save.cpl) == (0x10, 0xC9B, 0)


def test_syscall_that_is_off_changes_nothing(save, gprs):
    save.efer &= ~EFER.SCE
    before = bytes(save)
    assert syscall(save, gprs) is Vector.UD
    assert bytes(save) == before


@pytest.mark.parametrize(("efer", "attributes"), [(0, 0xC9B), (EFER.LMA, 0xA9B)])
def test_sysenter(save, efer, attributes):
    save.efer = efer
    save.sysenter_cs, save.sysenter_esp, save.sysenter_eip = 0x13, 0x9000, 0x4000
    assert sysenter(save) is None
    assert (save.rip, save.rsp, save.cpl) == (0x4000, 0x9000, 0)
    assert (save.cs.selector, save.cs.attributes, save.ss.selector) == (0x10, attributes, 0x18)
    assert not save.rflags & (RFLAGS.IF | RFLAGS.RF)


@pytest.mark.parametrize(("cr0", "selector"), [(0, 0x10), (CR0.PE, 0), (CR0.PE, 3)])
def test_sysenter_that_cannot_be_changes_nothing(save, cr0, selector):
    save.cr0, save.sysenter_cs = cr0, selector
    before = bytes(save)
    assert sysenter(save) is Vector.GP
    assert bytes(save) == before
