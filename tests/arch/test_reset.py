from trapline.arch.registers import CR0, CR4, Gprs
from trapline.arch.reset import RESET_VECTOR, init, reset, start_up
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


def test_an_init_keeps_what_the_manual_says():
    vmcb, gprs = Vmcb.from_buffer(bytearray(0x1000)), Gprs()
    fresh, untouched = Vmcb.from_buffer(bytearray(0x1000)), Gprs()
    reset(fresh, untouched, signature=0x800F12)
    reset(vmcb, gprs, signature=0x800F12)
    save = vmcb.save
    save.cr0, save.cr3, save.cr4, save.efer = CR0.PE | CR0.PG | CR0.CD, 0x1000, CR4.PAE, 0x1D00
    save.cs.base, save.gdtr.base, save.idtr.limit, save.cpl, save.rip = 1, 2, 3, 3, 4
    save.rax = save.rsp = save.cr2 = gprs.rbx = 5
    save.star, save.lstar, save.sysenter_eip, save.dr7, save.g_pat = 1, 2, 3, 0x401, 6
    init(vmcb, gprs, signature=0x800F12)
    assert (save.star, save.lstar, save.sysenter_eip, save.dr7, save.g_pat) == (1, 2, 3, 0x401, 6)
    assert save.cr0 == CR0.CD | CR0.ET
    save.star = save.lstar = save.sysenter_eip = 0
    save.dr7, save.g_pat, save.cr0 = fresh.save.dr7, fresh.save.g_pat, fresh.save.cr0
    assert bytes(vmcb) == bytes(fresh)
    assert bytes(gprs) == bytes(untouched)


def test_a_startup_ipi_names_a_page():
    vmcb = Vmcb.from_buffer(bytearray(0x1000))
    reset(vmcb, Gprs(), signature=0)
    start_up(vmcb.save, 0x9A)
    cs = vmcb.save.cs
    assert (cs.selector, cs.base, cs.limit, cs.attributes, vmcb.save.rip) == (0x9A00, 0x9A000, 0xFFFF, 0x09B, 0)
