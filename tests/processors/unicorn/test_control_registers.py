import pytest

from trapline.arch.cpuid import CR4_FEATURES
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import CR0, CR4
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.operands import EAX, EBX, RAX, RBX, Mem
from trapline.testing.conformance.modes import (
    CODE,
    LONG,
    PAGED_32,
    PROTECTED_32,
    READ_ONLY,
    page_table_entry,
)

GP = 1 << Vector.GP
PAGE = 0x1000


@pytest.mark.parametrize(("bit", "function", "register", "place"), CR4_FEATURES)
def test_cr4_takes_what_cpuid_shows(start, bit, function, register, place):
    guest = start(("mov", operands.CR4, EAX), "after:", "cpuid", exceptions=GP)
    has = guest.processor.cpuid(function, 0)[register] >> place & 1
    guest.save.rax = bit
    guest.save.cr0 |= CR0.WP
    taken = bool(has) and bit != CR4.PCIDE  # outside of long mode
    assert guest.exit() == (ExitCode.CPUID if taken else exception_exit(Vector.GP))
    assert guest.save.cr4 == bit * taken


def test_the_model_lacks_some_and_has_some(start):
    cpuid = start("cpuid").processor.cpuid
    shown = {bit for bit, function, register, place in CR4_FEATURES if cpuid(function, 0)[register] >> place & 1}
    assert shown >= {CR4.SMEP, CR4.SMAP, CR4.FSGSBASE}
    assert shown.isdisjoint({CR4.UMIP, CR4.PKE, CR4.CET, CR4.LA57, CR4.PCIDE})


@pytest.mark.parametrize(("mode", "value"), [(LONG, 0), (LONG, CR4.PAE | CR4.LA57), (PROTECTED_32, CR4.UMIP)])
def test_cr4_as_a_whole(start, mode, value):
    source = RAX if mode is LONG else EAX
    guest = start(("mov", operands.CR4, source), "cpuid", mode=mode, exceptions=GP)
    guest.save.rax = value
    assert guest.exit() == exception_exit(Vector.GP)
    assert (guest.save.cr4, guest.control.exit_info_1) == (mode.cr4, 0)


@pytest.mark.parametrize("mode", [PAGED_32, LONG])
def test_a_write_of_cr3_forgets_translations(start, mode):
    accumulator, base = (RAX, RBX) if mode is LONG else (EAX, EBX)
    entry = page_table_entry(READ_ONLY)
    guest = start(
        ("mov", EAX, Mem(base)),
        ("mov", Mem(None, entry, size=32), 0),
        ("mov", accumulator, operands.CR3),
        ("mov", operands.CR3, accumulator),
        "again:",
        ("mov", EAX, Mem(base)),
        "cpuid",
        mode=mode,
        exceptions=1 << Vector.PF,
    )
    guest.gprs.rbx = READ_ONLY
    assert guest.exit() == exception_exit(Vector.PF)
    assert guest.save.rip == guest.labels["again"]


@pytest.mark.parametrize("register", [operands.CR3, operands.CR4, operands.CR0], ids=["cr3", "cr4", "cr0"])
def test_a_guest_that_has_unmapped_its_code(start, register):
    """It goes on by what the CPU remembers of the page tables, until that is forgotten."""
    guest = start(
        ("mov", RAX, register),
        ("mov", Mem(RBX, size=32), 0),
        ("mov", register, RAX),
        "after:",
        ("mov", RAX, operands.CR3),
        ("mov", operands.CR3, RAX),
        "end:",
        "cpuid",
        mode=LONG,
        exceptions=1 << Vector.PF,
    )
    guest.gprs.rbx = page_table_entry(CODE)
    assert guest.exit() == exception_exit(Vector.PF)
    assert guest.save.rip in (guest.labels["after"], guest.labels["end"])
    assert guest.save.cr3 == LONG.cr3


def test_paging_begins_and_ends(start):
    guest = start(
        ("mov", EAX, PAGED_32.cr4),
        ("mov", operands.CR4, EAX),
        ("mov", EAX, PAGED_32.cr3),
        ("mov", operands.CR3, EAX),
        ("mov", EAX, PAGED_32.cr0),
        ("mov", operands.CR0, EAX),
        "on:",
        ("mov", EBX, Mem(None, 0x1_0000)),
        ("mov", EAX, PROTECTED_32.cr0),
        ("mov", operands.CR0, EAX),
        ("mov", EBX, Mem(None, 0x1_0000)),
        "cpuid",
        exceptions=1 << Vector.PF,
    )
    assert guest.exit() == exception_exit(Vector.PF)
    assert (guest.save.rip, guest.save.cr0, guest.control.exit_info_2) == (guest.labels["on"], PAGED_32.cr0, 0x1_0000)
    guest.save.rip += 6
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.cr0 == PROTECTED_32.cr0
