import pytest

from trapline.arch.emulation import finish_instruction
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vmcb import Vmcb


@pytest.mark.parametrize(
    ("flags", "due", "dr6"),
    [(RFLAGS.IF | RFLAGS.RF, False, 1 << 0), (RFLAGS.IF | RFLAGS.TF | RFLAGS.RF, True, DR6.BS | 1 << 0)],
)
def test_the_end_of_an_instruction(flags, due, dr6):
    vmcb = Vmcb()
    vmcb.control.interrupt_shadow, vmcb.save.rflags, vmcb.save.dr6 = 1, flags, 1 << 0
    assert finish_instruction(vmcb.control, vmcb.save) is due
    assert (vmcb.control.interrupt_shadow, vmcb.save.rflags, vmcb.save.dr6) == (0, flags & ~RFLAGS.RF, dr6)
