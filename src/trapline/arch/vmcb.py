"""The virtual machine control block, each field once (APM appendix B, tables B-1 and B-2)."""

from collections.abc import Iterator
from typing import Final

from .descriptors import SegmentState
from .events import decode
from .exits import exit_name
from .layout import Array, Structure, at, layout, leaves, u8, u16, u32, u64


@layout(size=0x10)
class Segment(Structure):
    """A segment register with its hidden part."""

    selector: u16 = at(0x0)
    attributes: u16 = at(0x2)
    """Descriptor bits 47:40 in 7:0, bits 55:52 in 11:8."""
    limit: u32 = at(0x4)
    """In bytes, the granularity already applied."""
    base: u64 = at(0x8)


def segment_state(segment: Segment) -> SegmentState:
    """Copy a segment register."""
    return SegmentState(segment.selector, segment.attributes, segment.limit, segment.base)


def load_segment(segment: Segment, state: SegmentState) -> None:
    """Write a segment register."""
    segment.selector, segment.attributes, segment.limit, segment.base = state


class IntCtl:
    """Virtual interrupts, `ControlArea.int_ctl` (APM 15.21)."""

    V_TPR: Final = 0xFF
    V_IRQ: Final = 1 << 8
    PRIORITY_SHIFT: Final = 16
    """Of V_INTR_PRIO, four bits."""
    V_IGN_TPR: Final = 1 << 20
    V_INTR_MASKING: Final = 1 << 24
    VECTOR_SHIFT: Final = 32
    """Of V_INTR_VECTOR, eight bits."""


@layout(size=0x400)
class ControlArea(Structure):
    """APM table B-1: what to intercept, and why VMRUN came back."""

    intercept_cr: u32 = at(0x000)
    """Reads of CR0-15 in 15:0, writes in 31:16."""
    intercept_dr: u32 = at(0x004)
    intercept_exceptions: u32 = at(0x008)
    intercept_misc1: u32 = at(0x00C)
    intercept_misc2: u32 = at(0x010)
    intercept_misc3: u32 = at(0x014)
    pause_filter_threshold: u16 = at(0x03C)
    pause_filter_count: u16 = at(0x03E)
    iopm_base_pa: u64 = at(0x040)
    msrpm_base_pa: u64 = at(0x048)
    tsc_offset: u64 = at(0x050)
    asid: u32 = at(0x058)
    tlb_control: u8 = at(0x05C)
    """0 nothing, 1 everything, 3 this ASID, 7 this ASID without global pages (APM 15.16)."""
    rap_control: u8 = at(0x05D)
    int_ctl: u64 = at(0x060)
    """Bits of `IntCtl`."""
    interrupt_shadow: u64 = at(0x068)
    exit_code: u64 = at(0x070)
    exit_info_1: u64 = at(0x078)
    exit_info_2: u64 = at(0x080)
    exit_int_info: u64 = at(0x088)
    np_control: u64 = at(0x090)
    """Nested paging in bit 0."""
    avic_apic_bar: u64 = at(0x098)
    ghcb_gpa: u64 = at(0x0A0)
    event_inj: u64 = at(0x0A8)
    ncr3: u64 = at(0x0B0)
    virt_ext: u64 = at(0x0B8)
    """LBR virtualization in bit 0, virtual VMLOAD and VMSAVE in bit 1."""
    clean: u32 = at(0x0C0)
    """Zero is always right (APM 15.15)."""
    nrip: u64 = at(0x0C8)
    insn_count: u8 = at(0x0D0)
    insn_bytes: Array[u8] = at(0x0D1, count=15)
    avic_backing_page: u64 = at(0x0E0)
    avic_logical_table: u64 = at(0x0F0)
    avic_physical_table: u64 = at(0x0F8)
    vmsa_pa: u64 = at(0x108)
    vmgexit_rax: u64 = at(0x110)
    vmgexit_cpl: u8 = at(0x118)
    bus_lock_counter: u16 = at(0x120)
    update_irr: u32 = at(0x134)
    allowed_sev_features: u64 = at(0x138)
    guest_sev_features: u64 = at(0x140)
    requested_irr: Array[u8] = at(0x150, count=32)
    software: Array[u8] = at(0x3E0, count=32)
    """Hardware ignores these."""


@layout(size=0xC00)
class SaveArea(Structure):
    """APM table B-2: the guest's state. FS, GS, TR, LDTR and star to sysenter_eip move by VMLOAD, VMSAVE."""

    es: Segment = at(0x000)
    cs: Segment = at(0x010)
    ss: Segment = at(0x020)
    ds: Segment = at(0x030)
    fs: Segment = at(0x040)
    gs: Segment = at(0x050)
    gdtr: Segment = at(0x060)
    ldtr: Segment = at(0x070)
    idtr: Segment = at(0x080)
    tr: Segment = at(0x090)
    cpl: u8 = at(0x0CB)
    efer: u64 = at(0x0D0)
    perf: Array[u64] = at(0x0E0, count=12)
    """PERF_CTL0, PERF_CTR0, PERF_CTL1 and so on."""
    cr4: u64 = at(0x148)
    cr3: u64 = at(0x150)
    cr0: u64 = at(0x158)
    dr7: u64 = at(0x160)
    dr6: u64 = at(0x168)
    rflags: u64 = at(0x170)
    rip: u64 = at(0x178)
    instr_retired_ctr: u64 = at(0x1C0)
    perf_ctr_global_sts: u64 = at(0x1C8)
    perf_ctr_global_ctl: u64 = at(0x1D0)
    rsp: u64 = at(0x1D8)
    s_cet: u64 = at(0x1E0)
    ssp: u64 = at(0x1E8)
    isst_addr: u64 = at(0x1F0)
    rax: u64 = at(0x1F8)
    star: u64 = at(0x200)
    lstar: u64 = at(0x208)
    cstar: u64 = at(0x210)
    sfmask: u64 = at(0x218)
    kernel_gs_base: u64 = at(0x220)
    sysenter_cs: u64 = at(0x228)
    sysenter_esp: u64 = at(0x230)
    sysenter_eip: u64 = at(0x238)
    cr2: u64 = at(0x240)
    g_pat: u64 = at(0x268)
    """Used with nested paging only."""
    dbgctl: u64 = at(0x270)
    br_from: u64 = at(0x278)
    br_to: u64 = at(0x280)
    last_excp_from: u64 = at(0x288)
    last_excp_to: u64 = at(0x290)
    dbgextnctl: u64 = at(0x298)
    spec_ctrl: u64 = at(0x2E0)
    lbr_stack: Array[u64] = at(0x670, count=32)
    lbr_select: u64 = at(0x770)
    ibs: Array[u64] = at(0x778, count=10)


@layout(size=0x1000)
class Vmcb(Structure):
    """One page: the control area, then the save area."""

    control: ControlArea = at(0x000)
    save: SaveArea = at(0x400)


def dump(vmcb: Vmcb) -> str:
    """Return the fields that are not zero, one a line, with the name of the exit first."""
    control = vmcb.control
    lines = [f"exit: {exit_name(control.exit_code)} ({control.exit_code:#x})"]
    for name, field in (("vectoring", control.exit_int_info), ("injecting", control.event_inj)):
        event = decode(field)
        if event is not None:
            lines.append(f"{name}: {event}")
    lines += _dump("control", control)
    lines += _dump("save", vmcb.save)
    return "\n".join(lines)


def _dump(title: str, area: ControlArea | SaveArea) -> Iterator[str]:
    yield f"{title}:"
    for path, offset, size, value in leaves(area):
        if value:
            yield f"  {offset:#05x} {path:<24} {value:#0{2 + 2 * size}x}"
