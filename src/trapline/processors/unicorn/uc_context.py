"""The CPU state as Unicorn keeps it: private to its versions, and so checked when a processor starts.

`uc_context_save` copies this structure out and `uc_context_restore` copies it back, in half a microsecond
each; to read the same registers through the public calls takes a hundred times as long.
"""

from typing import Final

from trapline.arch.layout import Array, Structure, at, layout, offset_of, u32, u64


@layout(size=24)
class CachedSegment(Structure):
    """A segment register with its descriptor, or a table register with base and limit."""

    selector: u32 = at(0)
    base: u64 = at(8)
    limit: u32 = at(16)
    flags: u32 = at(20)
    """The second doubleword of the descriptor, of which the attributes count."""


@layout(size=5608)
class Context(Structure):
    """`struct uc_context` of an x86 CPU: a header, then CPUX86State of QEMU 5.0.1 up to end_reset_fields."""

    gprs: Array[u64] = at(40, count=16)
    """In the order that instructions number them."""
    rip: u64 = at(168)
    eflags: u64 = at(176)
    """Without the status flags and DF."""
    cc_src: u64 = at(192)
    cc_op: u32 = at(208)
    """How the status flags are to be computed; `CC_OP_EFLAGS`: they are in cc_src."""
    df: u32 = at(212)
    """1, or -1 where RFLAGS.DF is set."""
    hflags: u32 = at(216)
    hflags2: u32 = at(220)
    segments: Array[CachedSegment] = at(224, count=6)
    """ES, CS, SS, DS, FS, GS."""
    ldtr: CachedSegment = at(368)
    tr: CachedSegment = at(392)
    gdtr: CachedSegment = at(416)
    idtr: CachedSegment = at(440)
    cr0: u64 = at(464)
    cr2: u64 = at(480)
    cr3: u64 = at(488)
    cr4: u64 = at(496)
    a20_mask: u32 = at(536)
    efer: u64 = at(632)
    sysenter_cs: u32 = at(4840)
    sysenter_esp: u64 = at(4848)
    sysenter_eip: u64 = at(4856)
    star: u64 = at(4864)
    vm_hsave: u64 = at(4872)
    lstar: u64 = at(4880)
    cstar: u64 = at(4888)
    sfmask: u64 = at(4896)
    kernel_gs_base: u64 = at(4904)
    error_code: u32 = at(5424)
    dr: Array[u64] = at(5440, count=6)
    dr6: u64 = at(5488)
    dr7: u64 = at(5496)
    old_exception: u32 = at(5536)
    intercept: u64 = at(5560)
    intercept_cr: u32 = at(5568)
    intercept_dr: u32 = at(5572)


FPU: Final = slice(offset_of(Context, "efer") + 8, offset_of(Context, "sysenter_cs"))
"""The bytes of the x87, MMX and SSE registers and of what their computations depend on."""

CS: Final = 1
"""In the order of segment registers."""

CC_OP_EFLAGS: Final = 1
"""The status flags are in cc_src. With other values Unicorn computes them when they are needed."""

HF_INHIBIT_IRQ: Final = 1 << 3
"""The interrupt shadow."""
HF_CS32: Final = 1 << 4
"""CS.D: of code that is not of 64 bits."""
HF_CS64: Final = 1 << 15
"""64-bit code."""
HF_GUEST: Final = 1 << 21
"""SVM's guest mode."""
HF_IOBPT: Final = 1 << 24
"""An I/O breakpoint is enabled in DR7."""
HF2_GIF: Final = 1 << 0
"""Interrupts are recognised."""
HF2_NMI: Final = 1 << 2
"""An NMI is being handled: the next waits for IRET."""
HF_CPL: Final = 3

ATTRIBUTES_LOW: Final = 8
ATTRIBUTES_HIGH: Final = 12
"""Attributes 7:0 of the VMCB are bits 15:8 of `CachedSegment.flags`, attributes 11:8 are bits 23:20."""


def word(path: str) -> int:
    """Return the index of a field in the context seen as 64-bit words."""
    place = offset_of(Context, path)
    assert place % 8 == 0, path
    return place // 8
