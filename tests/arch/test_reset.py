from trapline.arch.registers import Gprs
from trapline.arch.reset import RESET_VECTOR, reset
from trapline.arch.vmcb import Vmcb


def test_the_state_after_reset():
    memory = bytearray(b"\xa5" * 0x1000)
    vmcb, gprs = Vmcb.from_buffer(memory), Gprs()
    gprs.rbx = 1
    reset(vmcb, gprs, signature=0x800F12)
    save = vmcb.save

    def segment(name):
        register = getattr(save, name)
        return register.selector, register.attributes, register.limit, register.base

    for name in ("es", "ss", "ds", "fs", "gs"):
        assert segment(name) == (0, 0x093, 0xFFFF, 0)
    assert segment("cs") == (0xF000, 0x09B, 0xFFFF, 0xFFFF0000)
    assert segment("ldtr") == (0, 0x082, 0xFFFF, 0)
    assert segment("tr") == (0, 0x08B, 0xFFFF, 0)
    assert segment("gdtr") == segment("idtr") == (0, 0, 0xFFFF, 0)
    assert save.cs.base + save.rip == RESET_VECTOR
    assert (save.cr0, save.cr3, save.cr4, save.efer) == (0x60000010, 0, 0, 0x1000)
    assert (save.dr6, save.dr7, save.rflags) == (0xFFFF0FF0, 0x400, 2)
    assert save.g_pat == 0x0007040600070406
    assert (save.cpl, save.rax, save.rsp, save.cr2, save.star, save.ibs[9]) == (0,) * 6
    assert gprs.rdx == 0x800F12
    assert sum(bytes(gprs)) == sum((0x800F12).to_bytes(4, "little"))
    assert memory[:0x400] == b"\xa5" * 0x400
