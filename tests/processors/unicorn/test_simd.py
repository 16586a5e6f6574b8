"""Misaligned operands of SSE raise #GP, and AVX raises #UD, as Unicorn alone does not."""

import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, CR4, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.alignment import AlignedOperand
from trapline.asm.decoder import Register
from trapline.asm.operands import EAX, ECX, EDX, RAX, RBX, RCX, RDX, XMM0, Mem, Reg
from trapline.processors.unicorn import pacemaker
from trapline.testing.conformance.code import assemble
from trapline.testing.conformance.modes import CODE, DATA, LONG, PROTECTED_32

FS = Reg(Register.FS, "SEG")
LDMXCSR = b"\x0f\xae\x14\x25" + (DATA + 0x100).to_bytes(4, "little")
GP_EXIT = 0x40 + Vector.GP


@pytest.fixture
def sse(start, monkeypatch):
    """Return a function that starts a guest with SSE switched on, with #GP intercepted."""

    def sse(*lines, mode=LONG, cr4=CR4.OSFXSR, **options):
        monkeypatch.setattr(pacemaker, "_BEAT", 60)  # a stop in the middle of a block has it go on without hooks
        guest = start(*lines, mode=mode, exceptions=1 << Vector.GP, **options)
        guest.save.cr4 |= cr4
        return guest

    return sse


@pytest.mark.parametrize(
    ("mode", "access", "raises"),
    [
        (LONG, ("movaps", Mem(RDX, 8), XMM0), True),
        (LONG, ("movaps", XMM0, Mem(RDX, 8)), True),
        (LONG, ("movaps", XMM0, Mem(RDX, 16)), False),
        (LONG, ("addps", XMM0, Mem(RDX, 4)), True),
        (LONG, ("pxor", XMM0, Mem(RDX, 0, RCX, 4)), True),
        (LONG, ("pxor", XMM0, Mem(RDX, 0, RCX, 8)), False),
        (LONG, ("movdqa", XMM0, Mem(None, DATA + 1)), True),
        (LONG, ("movdqa", XMM0, Mem(RDX, segment=FS)), True),
        (LONG, ("movups", XMM0, Mem(RDX, 8)), False),
        (LONG, ("addss", XMM0, Mem(RDX, 4)), False),
        (LONG, ("pcmpistri", XMM0, Mem(RDX, 4), 0), False),
        (PROTECTED_32, ("movaps", Mem(EDX, 8), XMM0), True),
        (PROTECTED_32, ("movaps", Mem(EDX), XMM0), False),
    ],
)  # fmt: skip
def test_which_operands_must_be_aligned(sse, mode, access, raises):
    wide = mode is LONG
    guest = sse(
        ("mov", RDX if wide else EDX, DATA), ("mov", RCX if wide else ECX, 2), "here:", access, "cpuid", mode=mode
    )
    guest.save.fs.base = 4
    assert guest.exit() == (GP_EXIT if raises else ExitCode.CPUID)
    if raises:
        assert guest.control.exit_info_1 == 0
        assert guest.save.rip == guest.labels["here"]
        assert guest.memory.read(DATA, 32) == bytes(32), "nothing is stored"


def test_the_flags_before_it_are_kept(sse):
    guest = sse(("mov", RDX, DATA + 8), ("mov", EAX, 5), ("cmp", EAX, 7), ("movaps", XMM0, Mem(RDX)), ("cmp", EAX, 5))
    assert guest.exit() == GP_EXIT
    assert guest.save.rflags & RFLAGS.STATUS == RFLAGS.CF | RFLAGS.SF | RFLAGS.AF


def test_what_comes_before_the_check(sse):
    """#NM and #UD are of a higher priority, and MXCSR.MM permits it."""
    access = ("mov", RDX, DATA + 8), ("movaps", XMM0, Mem(RDX)), "cpuid"
    for changes in ({"cr0": CR0.TS}, {"cr0": CR0.EM}, {"cr4": 0}):
        guest = sse(*access, cr4=changes.get("cr4", CR4.OSFXSR))
        guest.save.cr0 |= changes.get("cr0", 0)
        guest.control.intercept_exceptions |= 1 << Vector.UD | 1 << Vector.NM
        assert guest.exit() == 0x40 + (Vector.NM if changes.get("cr0") == CR0.TS else Vector.UD)
    guest = sse(*["nop"] * len(LDMXCSR), *access)
    guest.memory.write(CODE, LDMXCSR)
    guest.memory.write(DATA + 0x100, (0x1F80 | 1 << 17).to_bytes(4, "little"))
    assert guest.exit() == ExitCode.CPUID


def loop(count, access):
    """Return code that executes an instruction `count` times, the last time with RDX 8 higher."""
    return (
        *(("mov", RDX, DATA), ("mov", RCX, count - 1), "again:", access, ("sub", RCX, 1), ("jne", "again")),
        *(("cmp", RBX, 0), ("jne", "end"), ("mov", RBX, 1), ("mov", RCX, 1), ("add", RDX, 8), ("jmp", "again")),
        *("end:", "cpuid"),
    )


@pytest.mark.parametrize(("count", "end"), [(200, GP_EXIT), (400, ExitCode.CPUID)])
def test_each_instruction_is_checked_a_number_of_times(sse, count, end):
    guest = sse(*loop(count, ("movaps", XMM0, Mem(RDX))))
    assert guest.exit() == end
    assert guest.processor.core.binding.hooks_code is (end == GP_EXIT)


def test_the_oldest_hooks_give_way(sse):
    lines = [("movaps", XMM0, Mem(RDX)) for _ in range(300)]
    guest = sse(("mov", RDX, DATA), *lines, ("movaps", XMM0, Mem(RDX, 4)), "cpuid")
    assert guest.exit() == GP_EXIT
    assert guest.save.rip > CODE + 900
    assert len(guest.processor.core.binding._hooked) == 128


def test_code_that_takes_the_place_of_other_code_is_checked(sse):
    guest = sse(("mov", RDX, DATA), "here:", ("movaps", XMM0, Mem(RDX)), ("movaps", XMM0, Mem(RDX, 16)), "cpuid")
    assert guest.exit() == ExitCode.CPUID
    other = assemble(64, ("movaps", XMM0, Mem(RDX, 16)), ("movaps", XMM0, Mem(RDX, 8))).blob
    guest.memory.write(guest.labels["here"], other)
    guest.save.rip = CODE
    assert guest.exit() == GP_EXIT


def test_code_that_has_changed_is_not_accused(sse):
    guest = sse(("mov", RDX, DATA + 8), "here:", ("mov", RAX, Mem(RDX)), "cpuid")
    checks = guest.processor.core.loop._simd
    misplaced = guest.labels["here"]
    assert guest.exit() == ExitCode.CPUID
    guest.save.rip = CODE
    checks._found[misplaced] = AlignedOperand(misplaced, 2, -1, 1, 0, -1)
    checks._left[misplaced] = 5
    checks._new.append(misplaced)
    checks._blocks.append((CODE, 0x20))
    guest.processor.core.pending.due = True
    assert guest.exit() == ExitCode.CPUID


@pytest.mark.parametrize(
    ("code", "cr4"),
    [
        (b"\xc5\xf8\x28\xc1", CR4.OSFXSR),  # vmovaps xmm0, xmm1: an instruction of SSE for Unicorn
        (b"\xc5\xf0\x58\xc2", CR4.OSFXSR),  # vaddps xmm0, xmm1, xmm2: it would add XMM0
        (b"\xc4\xc1\x70\x58\xc0", CR4.OSFXSR),  # vaddps xmm0, xmm1, xmm8
        (b"\xc5\xf8\x77", 0),  # vzeroupper
        (b"\xc4\xe2\x7d\x18\x02", 0),  # vbroadcastss ymm0, [rdx]
        (b"\xc4\xe2\x71\xb8\xc2", 0),  # vfmadd231ps xmm0, xmm1, xmm2
    ],
)
def test_avx_is_undefined(sse, code, cr4):
    guest = sse(("mov", RDX, DATA), ("cmp", RDX, RDX), *["nop"] * len(code), "cpuid", cr4=cr4)
    guest.control.intercept_exceptions |= 1 << Vector.UD
    guest.memory.write(at := CODE + 13, code)
    for _ in range(2):
        assert guest.exit() == 0x40 + Vector.UD
        assert guest.save.rip == at
        assert guest.save.rflags & RFLAGS.ZF
    guest.memory.write(at, b"\x90" * len(code))
    assert guest.exit() == ExitCode.CPUID


def test_vex_on_general_registers_is_executed(sse):
    guest = sse(("mov", RAX, 6), ("mov", RCX, 2), *["nop"] * 5, "cpuid", cr4=0)
    guest.memory.write(CODE + 20, b"\xc4\xe2\xf0\xf2\xd0")  # andn rdx, rcx, rax
    guest.control.intercept_exceptions |= 1 << Vector.UD
    assert guest.exit() == ExitCode.CPUID
    assert guest.gprs.rdx == 4
