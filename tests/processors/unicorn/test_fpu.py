"""The x87, MMX and SSE registers of the stopped guest."""

import pytest

from trapline.arch import fxsave
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, CR4
from trapline.asm.operands import EAX, XMM0, Mem
from trapline.errors import UsageError
from trapline.machine.processor import Outcome
from trapline.testing.conformance.modes import DATA, LONG, PROTECTED_32

PI = 0x4000_C90F_DAA2_2168_C235


@pytest.mark.parametrize("mode", [PROTECTED_32, LONG], ids=["pm32", "long"])
def test_the_guest_sees_what_is_written(start, mode):
    guest = start("fninit", "fld1", ("movd", XMM0, EAX), "cpuid", ("fxsave", Mem(None, DATA)), "cpuid", mode=mode)
    processor, guest.save.rax = guest.processor, 0x1234
    guest.save.cr4 |= CR4.OSFXSR
    assert guest.exit() == ExitCode.CPUID
    image = processor.read_fpu()
    assert image == processor.read_fpu()
    assert (fxsave.read(image, "st0"), fxsave.read(image, "ftw")) == (0x3FFF << 64 | 1 << 63, 0x3FFF)
    assert fxsave.read(image, "xmm0") == 0x1234
    image = fxsave.write(fxsave.write(image, "st0", PI), "xmm0", 5 << 64 | 6)
    processor.write_fpu(image)
    assert processor.read_fpu() == image
    guest.save.rip += 2
    assert guest.exit() == ExitCode.CPUID
    seen = guest.memory.read(DATA, fxsave.SIZE)
    assert (fxsave.read(seen, "st0"), fxsave.read(seen, "xmm0")) == (PI, 5 << 64 | 6)
    assert guest.save.cr4 & CR4.OSFXSR


def test_registers_are_reset_and_are_read_though_the_guest_has_not_enabled_them(start):
    guest = start("fninit", "fld1", "cpuid")
    assert guest.exit() == ExitCode.CPUID
    guest.processor.shutdown()
    assert guest.run() is Outcome.RESET
    guest.save.cr0 |= CR0.TS | CR0.EM
    found = {name: fxsave.read(guest.processor.read_fpu(), name) for name in ("fcw", "ftw", "st0", "mxcsr")}
    assert found == {"fcw": 0x40, "ftw": 0x5555, "st0": 0, "mxcsr": 0x1F80}


def test_reserved_bits_of_mxcsr_are_refused(start):
    processor = start("cpuid").processor
    with pytest.raises(UsageError, match="MXCSR has no bits 0x80000000"):
        processor.write_fpu(fxsave.write(processor.read_fpu(), "mxcsr", 1 << 31))
