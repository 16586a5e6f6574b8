import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch.error_codes import describe_debug, describe_error_code
from trapline.arch.registers import DR6


@pytest.mark.parametrize(
    ("vector", "code", "words"),
    [
        (14, 0x6, "write, not present, user"),
        (14, 0x0, "read, not present, supervisor"),
        (14, 0x11, "instruction fetch, protection violation, supervisor"),
        (14, 0x9, "read, protection violation, supervisor, reserved bit set"),
        (14, 0x25, "read, protection violation, user, protection key"),
        (14, 0x47, "write, protection violation, user, shadow stack"),
        (14, 0x8000_0003, "write, protection violation, supervisor, RMP check"),
        (13, 0x0, "no selector"),
        (13, 0x1, "no selector, external"),
        (13, 0x29, "selector 0x28: GDT index 5, external"),
        (11, 0x2C, "selector 0x2c: LDT index 5"),
        (10, 0x28, "selector 0x28: GDT index 5"),
        (12, 0x10, "selector 0x10: GDT index 2"),
        (13, 0x73, "IDT entry 14, external"),
        (13, 0x402, "IDT entry 128"),
        (13, 0x2, "IDT entry 0"),
        (8, 0, "always zero"),
        (17, 0, "always zero"),
        (8, 4, "0x4, though it is always zero"),
        (21, 1, "near RET to another address than the shadow stack's"),
        (21, 0x8003, "no ENDBRANCH at the target"),
        (21, 9, "unknown cause 0x9"),
        (29, 0x72, "CPUID"),
        (30, 1, "INIT, redirected by VM_CR.R_INIT"),
        (30, 2, "unknown cause 0x2"),
        (6, 3, "0x3, though the exception has no error code"),
    ],
)
def test_words(vector, code, words):
    assert describe_error_code(vector, code) == words


@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_every_code_has_words(vector, code):
    assert describe_error_code(vector, code)


@pytest.mark.parametrize(
    ("dr6", "words"),
    [
        (DR6.FIXED, "no cause in DR6"),
        (DR6.FIXED | DR6.BS, "single step"),
        (DR6.FIXED | DR6.B0 | DR6.B3, "breakpoint 0, breakpoint 3"),
        (DR6.FIXED & ~DR6.BLD, "bus lock"),
    ],
)
def test_causes_of_a_debug_exception(dr6, words):
    assert describe_debug(dr6) == words
