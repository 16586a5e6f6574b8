import mmap

import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.layout import offset_of, size_of
from trapline.arch.vmcb import ControlArea, SaveArea, Segment, Vmcb, dump


def test_sizes():
    assert [size_of(cls) for cls in (Segment, ControlArea, SaveArea, Vmcb)] == [0x10, 0x400, 0xC00, 0x1000]


CONTROL = {
    "intercept_cr": (0x000, 4),
    "intercept_exceptions": (0x008, 4),
    "intercept_misc3": (0x014, 4),
    "pause_filter_threshold": (0x03C, 2),
    "pause_filter_count": (0x03E, 2),
    "iopm_base_pa": (0x040, 8),
    "msrpm_base_pa": (0x048, 8),
    "tsc_offset": (0x050, 8),
    "asid": (0x058, 4),
    "tlb_control": (0x05C, 1),
    "int_ctl": (0x060, 8),
    "interrupt_shadow": (0x068, 8),
    "exit_code": (0x070, 8),
    "exit_info_1": (0x078, 8),
    "exit_info_2": (0x080, 8),
    "exit_int_info": (0x088, 8),
    "np_control": (0x090, 8),
    "avic_apic_bar": (0x098, 8),
    "ghcb_gpa": (0x0A0, 8),
    "event_inj": (0x0A8, 8),
    "ncr3": (0x0B0, 8),
    "virt_ext": (0x0B8, 8),
    "clean": (0x0C0, 4),
    "nrip": (0x0C8, 8),
    "insn_count": (0x0D0, 1),
    "insn_bytes": (0x0D1, 15),
    "software": (0x3E0, 32),
}
SAVE = {
    "es": (0x000, 16),
    "cs.selector": (0x010, 2),
    "cs.attributes": (0x012, 2),
    "cs.limit": (0x014, 4),
    "cs.base": (0x018, 8),
    "tr": (0x090, 16),
    "cpl": (0x0CB, 1),
    "efer": (0x0D0, 8),
    "cr4": (0x148, 8),
    "cr0": (0x158, 8),
    "dr6": (0x168, 8),
    "rflags": (0x170, 8),
    "rip": (0x178, 8),
    "rsp": (0x1D8, 8),
    "rax": (0x1F8, 8),
    "star": (0x200, 8),
    "kernel_gs_base": (0x220, 8),
    "sysenter_eip": (0x238, 8),
    "cr2": (0x240, 8),
    "g_pat": (0x268, 8),
    "dbgextnctl": (0x298, 8),
    "spec_ctrl": (0x2E0, 8),
    "lbr_select": (0x770, 8),
    "ibs": (0x778, 0x50),
}


@pytest.mark.parametrize(("path", "place"), CONTROL.items())
def test_control_fields(path, place):
    assert (offset_of(ControlArea, path), size_of(ControlArea, path)) == place


@pytest.mark.parametrize(("path", "place"), SAVE.items())
def test_save_fields(path, place):
    assert (offset_of(Vmcb, "save." + path), size_of(SaveArea, path)) == (0x400 + place[0], place[1])


def test_a_view_of_shared_memory():
    with mmap.mmap(-1, 0x2000) as memory:
        vmcb = Vmcb.from_buffer(memory, 0x1000)
        vmcb.save.cs.base = 0xFFFF0000
        vmcb.control.insn_bytes[14] = 0xCC
        assert memory[0x1418:0x1420] == (0xFFFF0000).to_bytes(8, "little")
        assert memory[0x10DF] == 0xCC
        del vmcb


def test_the_dump_speaks():
    vmcb = Vmcb()
    vmcb.control.exit_code = 0x4E
    vmcb.control.exit_int_info = encode(Event(13, EventType.EXCEPTION, 0x18))
    vmcb.control.insn_bytes[2] = 0x90
    vmcb.save.cs.selector = 0xF000
    assert dump(vmcb).splitlines() == [
        "exit: exception #PF (0x4e)",
        "vectoring: #GP(0x18)",
        "control:",
        "  0x070 exit_code                0x000000000000004e",
        "  0x088 exit_int_info            0x0000001880000b0d",
        "  0x0d3 insn_bytes[2]            0x90",
        "save:",
        "  0x010 cs.selector              0xf000",
    ]
    vmcb.control.event_inj = encode(Event(2, EventType.NMI))
    assert "injecting: NMI" in dump(vmcb)
