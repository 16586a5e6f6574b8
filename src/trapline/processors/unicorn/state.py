"""The guest's state between Unicorn's context and the VMCB: what VMRUN loads and #VMEXIT saves (APM 15.5, 15.6).

At most exits nothing changed but a few registers, so whole areas are compared as bytes before a field is copied.
"""

from collections.abc import Iterable
from typing import Final

from trapline.arch.bits import M32
from trapline.arch.exits import ExitCode
from trapline.arch.layout import gatherer, offset_of
from trapline.arch.registers import CR0, EFER, RFLAGS
from trapline.arch.vmcb import IntCtl, Segment, Vmcb

from .binding import Binding
from .engine import MSRPM, Engine
from .uc_context import (
    ATTRIBUTES_HIGH,
    ATTRIBUTES_LOW,
    CC_OP_EFLAGS,
    HF2_GIF,
    HF2_NMI,
    HF_CPL,
    HF_INHIBIT_IRQ,
    CachedSegment,
    Context,
    word,
)

_A20: Final = 1 << 20

_RAX, _RSP = word("gprs"), word("gprs") + 4
_RIP, _EFLAGS = word("rip"), word("eflags")
_CR0, _CR2, _CR3, _CR4 = word("cr0"), word("cr2"), word("cr3"), word("cr4")
_HFLAGS = word("hflags")  # and hflags2 above
_DR6, _DR7 = word("dr6"), word("dr7")
_OFTEN, _OFTEN_AT = gatherer(Context, ("rip", "eflags", "cc_src", "cc_op", "df", "hflags", "cr2", "efer", "dr6", "dr7"))
_REGISTERS, _MISC = word("intercept_cr"), word("intercept")  # words 0 and 1, words 3 and 4 of the VMCB's intercepts
_SEGMENTS_CR0 = slice(offset_of(Context, "segments"), offset_of(Context, "cr0") + 8)
_CR3_CR4 = slice(offset_of(Context, "cr3"), offset_of(Context, "cr4") + 8)
_CALLS = slice(offset_of(Context, "sysenter_cs"), offset_of(Context, "kernel_gs_base") + 8)


def _place(path: str) -> int:
    place = offset_of(Vmcb, path)
    assert place % 8 == 0, path
    return place // 8


_V_RIP, _V_RSP, _V_RAX, _V_RFLAGS = (_place(f"save.{name}") for name in ("rip", "rsp", "rax", "rflags"))
_V_CR0, _V_CR2, _V_CR3, _V_CR4 = (_place(f"save.{name}") for name in ("cr0", "cr2", "cr3", "cr4"))
_V_EFER, _V_DR6, _V_DR7 = (_place(f"save.{name}") for name in ("efer", "dr6", "dr7"))
_TOGETHER, _TOGETHER_AT = gatherer(Vmcb, ("save.dr7", "save.dr6", "save.rflags", "save.rip"))
assert _TOGETHER.size == 32, "four registers side by side"
_V_SHADOW = _place("control.interrupt_shadow")
_V_INT_CTL = _place("control.int_ctl")
_V_ASID = _place("control.asid")  # and TLB_CONTROL above
_V_CPL = offset_of(Vmcb, "save.cpl")
_V_REGISTERS = slice(offset_of(Vmcb, "save.es"), offset_of(Vmcb, "save.cr0") + 8)
"""Segments, CPL, EFER, CR4, CR3, CR0."""
_V_CALLS = slice(offset_of(Vmcb, "save.star"), offset_of(Vmcb, "save.sysenter_eip") + 8)
_V_INTERCEPTS = slice(offset_of(Vmcb, "control.intercept_cr"), offset_of(Vmcb, "control.intercept_misc3") + 4)
_V_SAVE = slice(offset_of(Vmcb, "save"), offset_of(Vmcb, "save.cr2") + 8)

_NEEDED_CR: Final = sum(
    1 << code for code in (ExitCode.READ_CR8, ExitCode.WRITE_CR8, ExitCode.WRITE_CR0, ExitCode.WRITE_CR4)
)
_NEEDED_DR: Final = 1 << ExitCode.WRITE_DR7 % 32
_NEEDED_1: Final = sum(1 << code % 32 for code in (ExitCode.VINTR, ExitCode.SWINT, ExitCode.HLT, ExitCode.MSR))
_NEEDED_2: Final = 1 << ExitCode.VMRUN % 32
"""What Unicorn must report because it cannot do it itself, or not as it should; the hypervisor may want more."""
_IRET: Final = 1 << ExitCode.IRET % 32

_WRITE_CR3: Final = 1 << ExitCode.WRITE_CR3
"""The same in long mode, outside of which CR3 takes any value, and while memory is watched."""

_COMPUTED: Final = RFLAGS.STATUS | RFLAGS.DF
"""Flags that Unicorn keeps elsewhere; in `Context.eflags` they may be old."""

_ORDER: Final = ("es", "cs", "ss", "ds", "fs", "gs")


class State:
    """Moves the guest's state. `collect` after the CPU stopped, `enter` to let it run."""

    def __init__(
        self, binding: Binding, engine: Engine, vmcb: Vmcb, buffer: bytearray, also: Iterable[ExitCode] = ()
    ) -> None:
        """`buffer` holds the bytes of `vmcb`; `also` are further instructions to stop at, of the third word."""
        self._binding, self._engine, self._resume = binding, engine, engine.resume
        self._context, self._bytes, self._words = binding.context, binding.context_bytes, binding.words
        self._vmcb = vmcb
        self._buffer = buffer
        self._vmcb_bytes = memoryview(vmcb).cast("B")
        self._vmcb_words = self._vmcb_bytes.cast("Q")
        self._shadow_bytes = memoryview(engine.vmcb).cast("B")
        self._seen: tuple[object, ...] = ()
        self._loaded: tuple[object, ...] = ()
        self.generation = 0
        """Another number after each change of what `changed` asks for."""
        self.window = False
        """Stop with a VINTR exit as soon as the guest can be interrupted."""
        self._needed_1 = _NEEDED_1 | sum(1 << code % 32 for code in also)
        self._iret = 0
        self._int_ctl = 0
        self._cr3 = 0

    def collect(self) -> None:
        """Write the guest's state into the save area."""
        words, to, memory = self._words, self._vmcb_words, self._bytes
        rip, eflags, cc_src, cc_op, df, hflags, cr2, efer, dr6, dr7 = _OFTEN.unpack_from(memory, _OFTEN_AT)
        if cc_op == CC_OP_EFLAGS:
            flags = eflags & ~_COMPUTED | cc_src & RFLAGS.STATUS
            if df != 1:
                flags |= RFLAGS.DF
        else:
            flags = self._binding.eflags()
        _TOGETHER.pack_into(self._vmcb_bytes, _TOGETHER_AT, dr7, dr6, flags, rip)
        to[_V_RSP], to[_V_RAX], to[_V_CR2] = words[_RSP], words[_RAX], cr2
        to[_V_SHADOW] = 1 if hflags & HF_INHIBIT_IRQ else 0
        seen = memory[_SEGMENTS_CR0], memory[_CR3_CR4], efer, memory[_CALLS], hflags & HF_CPL, flags & RFLAGS.VM
        if seen != self._seen:
            self._seen = seen
            to[_V_CR0], to[_V_CR3], to[_V_CR4], to[_V_EFER] = words[_CR0], words[_CR3], words[_CR4], efer
            self._vmcb_bytes[_V_CPL] = hflags & HF_CPL
            self._collect_segments()
            self._collect_calls()
            self._loaded = self._slow()
            self.generation += 1

    def changed(self) -> bool:
        """Return whether something changed since `collect` that takes a VMRUN, or that VMRUN may refuse.

        An interrupt for the guest in INT_CTL counts as such a change, and so does any other INT_CTL than the last one.
        """
        words = self._vmcb_words
        suspicious = (
            words[_V_INT_CTL] != self._int_ctl or not words[_V_ASID] & M32 or (words[_V_DR6] | words[_V_DR7]) >> 32
        )
        if suspicious:
            self._int_ctl = words[_V_INT_CTL] & ~IntCtl.V_IRQ
            return True
        return self._slow() != self._loaded

    def enter(self, *, unchanged: bool) -> int:
        """Run the guest from the VMCB; return the engine's event.

        Unless something changed that Unicorn keeps copies of, a VMRUN is spared. `unchanged`: nothing has, for sure.
        """
        words, of = self._words, self._vmcb_words
        shadow = of[_V_SHADOW] & 1
        loaded = unchanged or self._slow() == self._loaded
        if shadow and not loaded:
            self._load()
        if shadow or loaded:
            if of[_V_ASID] >> 32 & 0xFF:
                self._binding.flush_tlb()
            words[_RIP], words[_RSP], words[_RAX] = of[_V_RIP], of[_V_RSP], of[_V_RAX]
            words[_CR2], words[_DR6], words[_DR7] = of[_V_CR2], of[_V_DR6], of[_V_DR7]
            words[_EFLAGS] = of[_V_RFLAGS] | RFLAGS.ALWAYS_ONE  # Unicorn takes them apart as it starts
            hidden = words[_HFLAGS] & ~(HF_INHIBIT_IRQ | HF2_GIF << 32)
            if shadow:
                hidden |= HF_INHIBIT_IRQ
            if self.window:
                hidden |= HF2_GIF << 32
            words[_HFLAGS] = hidden
            return self._resume()
        return self._vmrun()

    @property
    def nmi_blocked(self) -> bool:
        """Whether an NMI is being handled: the next one waits for IRET (APM 8.2.3)."""
        return bool(self._context.hflags2 & HF2_NMI)

    @nmi_blocked.setter
    def nmi_blocked(self, blocked: bool) -> None:
        if blocked:
            self._context.hflags2 |= HF2_NMI
        else:
            self._context.hflags2 &= ~HF2_NMI

    def set_a20(self, enabled: bool) -> None:
        """Let bit 20 of addresses through, or clear it."""
        mask = M32 if enabled else M32 & ~_A20
        if self._context.a20_mask != mask:
            self._context.a20_mask = mask
            self._binding.flush_tlb()

    def intercept_iret(self) -> None:
        """Stop with an IRET exit at the next IRET."""
        self._iret = _IRET
        self._words[_MISC] |= _IRET

    def watch_cr3(self, watched: bool) -> None:
        """Stop with an exit at each write to CR3, or only at those that may be refused."""
        self._cr3 = _WRITE_CR3 if watched else 0
        self._loaded = ()  # takes a VMRUN

    def through_a20(self, gpa: int) -> int:
        """Return the physical address that comes of one where A20 is off."""
        return gpa & (self._context.a20_mask | ~M32)

    def step(self, code: int) -> int:
        """Execute, as Unicorn does, the one instruction that an intercept of ours stopped; return the event.

        It must be one that ends a block.
        """
        place, bit = (_REGISTERS, 1 << code) if code < ExitCode.INTR else (_MISC, 1 << code - ExitCode.INTR)
        self._words[place] &= ~bit
        self._words[_EFLAGS] = self._vmcb_words[_V_RFLAGS] | RFLAGS.ALWAYS_ONE  # whole, as `enter` gives them
        event = self._engine.step()
        if bit == _IRET and place == _MISC:
            self._iret = 0
        else:
            self._words[place] |= bit
        return event

    def _load(self) -> None:
        """Load everything but the interrupt shadow, which Unicorn's VMRUN does not know, and execute nothing.

        An interrupt that can be taken at once ends VMRUN before the first instruction.
        """
        flags = self._vmcb_words[_V_RFLAGS]
        self._vmcb_words[_V_RFLAGS] = flags | RFLAGS.IF
        self._vmrun()
        self._vmcb_words[_V_RFLAGS] = flags

    def _vmrun(self) -> int:
        """Load everything, by the VMRUN that Unicorn executes."""
        engine, save = self._engine, self._vmcb.save
        self._seen = ()
        self._shadow_bytes[_V_SAVE] = self._vmcb_bytes[_V_SAVE]
        shadow = engine.vmcb.save
        needed_cr = _NEEDED_CR | self._cr3
        if save.cr0 & CR0.PG and save.efer & EFER.LME:
            shadow.efer |= EFER.LMA  # its echo, which a hand-made state may lack
            needed_cr |= _WRITE_CR3
        else:
            shadow.efer &= ~EFER.LMA
        ours, theirs = engine.vmcb.control, self._vmcb.control
        ours.intercept_cr, ours.intercept_dr = theirs.intercept_cr | needed_cr, theirs.intercept_dr | _NEEDED_DR
        ours.intercept_exceptions = M32
        ours.intercept_misc1 = theirs.intercept_misc1 | self._needed_1 | self._iret
        ours.intercept_misc2 = theirs.intercept_misc2 | _NEEDED_2
        ours.asid, ours.msrpm_base_pa = 1, MSRPM
        ours.int_ctl = IntCtl.V_IRQ
        return engine.vmrun()

    def _slow(self) -> tuple[object, ...]:
        """Return what Unicorn keeps copies of, or checks only as it loads it."""
        memory = self._buffer
        return memory[_V_REGISTERS], memory[_V_CALLS], memory[_V_INTERCEPTS], self._vmcb_words[_V_RFLAGS] & RFLAGS.VM

    def _collect_segments(self) -> None:
        save, context = self._vmcb.save, self._context
        for number, name in enumerate(_ORDER):
            _copy(context.segments[number], getattr(save, name))
        _copy(context.ldtr, save.ldtr)
        _copy(context.tr, save.tr)
        for cached, table in ((context.gdtr, save.gdtr), (context.idtr, save.idtr)):
            table.base, table.limit = cached.base, cached.limit

    def _collect_calls(self) -> None:
        save, context = self._vmcb.save, self._context
        save.star, save.lstar, save.cstar, save.sfmask = context.star, context.lstar, context.cstar, context.sfmask
        save.kernel_gs_base, save.sysenter_cs = context.kernel_gs_base, context.sysenter_cs
        save.sysenter_esp, save.sysenter_eip = context.sysenter_esp, context.sysenter_eip


def _copy(cached: CachedSegment, segment: Segment) -> None:
    segment.selector, segment.base, segment.limit = cached.selector & 0xFFFF, cached.base, cached.limit
    segment.attributes = cached.flags >> ATTRIBUTES_LOW & 0xFF | cached.flags >> ATTRIBUTES_HIGH & 0xF00
