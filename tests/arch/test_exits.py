import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch.exits import (
    EXCEPTION_EXITS,
    INTERCEPTS,
    ExitCode,
    Intercept,
    clear_intercept,
    exit_name,
    is_intercepted,
    set_intercept,
)
from trapline.arch.vmcb import ControlArea


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x00, "READ_CR0"),
        (0x1F, "WRITE_CR15"),
        (0x27, "READ_DR7"),
        (0x36, "WRITE_DR6"),
        (0x60, "INTR"),
        (0x65, "CR0_SEL_WRITE"),
        (0x66, "IDTR_READ"),
        (0x6D, "TR_WRITE"),
        (0x72, "CPUID"),
        (0x75, "SWINT"),
        (0x78, "HLT"),
        (0x7C, "MSR"),
        (0x7F, "SHUTDOWN"),
        (0x80, "VMRUN"),
        (0x86, "SKINIT"),
        (0x88, "ICEBP"),
        (0x8E, "RDPRU"),
        (0x8F, "EFER_WRITE_TRAP"),
        (0x90, "CR0_WRITE_TRAP"),
        (0x9F, "CR15_WRITE_TRAP"),
        (0xA0, "INVLPGB"),
        (0xA6, "IDLE_HLT"),
        (0x400, "NPF"),
        (0x403, "VMGEXIT"),
        (2**64 - 1, "INVALID"),
        (2**64 - 4, "INVALID_PMC"),
        (0x40, "exception #DE"),
        (0x4E, "exception #PF"),
        (0x5F, "exception vector 0x1f"),
        (0xA7, "exit code 0xa7"),
        (0x4FF, "exit code 0x4ff"),
    ],
)
def test_names(code, name):
    assert exit_name(code) == name


@given(st.integers(0, 2**64 - 1))
def test_every_code_has_a_name(code):
    assert exit_name(code)


def test_the_space_below_the_last_intercept_has_no_hole():
    assert sorted([*INTERCEPTS, *EXCEPTION_EXITS]) == list(range(0xA7))


@pytest.mark.parametrize(
    ("intercept", "offset", "bit"),
    [
        (Intercept.WRITE_CR3, 0x000, 19),
        (Intercept.READ_DR7, 0x004, 7),
        (0x4E, 0x008, 14),
        (Intercept.INTR, 0x00C, 0),
        (Intercept.MSR, 0x00C, 28),
        (Intercept.SHUTDOWN, 0x00C, 31),
        (Intercept.VMRUN, 0x010, 0),
        (Intercept.XSETBV, 0x010, 13),
        (Intercept.CR4_WRITE_TRAP, 0x010, 20),
        (Intercept.INVPCID, 0x014, 2),
    ],
)
def test_bits_stand_where_the_manual_puts_them(intercept, offset, bit):
    memory = bytearray(0x400)
    control = ControlArea.from_buffer(memory)
    assert not is_intercepted(control, intercept)
    set_intercept(control, intercept)
    assert int.from_bytes(memory[offset : offset + 4], "little") == 1 << bit
    assert sum(memory) == sum((1 << bit).to_bytes(4, "little"))
    assert is_intercepted(control, intercept)
    clear_intercept(control, intercept)
    assert not any(memory)


def test_an_exit_without_an_intercept_is_refused():
    for code in (ExitCode.NPF, ExitCode.INVALID, -1):
        with pytest.raises(ValueError, match="no intercept bit"):
            set_intercept(ControlArea(), code)
