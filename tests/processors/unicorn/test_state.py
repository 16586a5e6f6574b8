import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, CR4, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import AX, DS, EAX, EBX, Mem
from trapline.testing.conformance.modes import CODE, DATA, DATA_32, LONG, PAGED_32, PROTECTED_32

STATUS = RFLAGS.CF | RFLAGS.PF | RFLAGS.AF | RFLAGS.ZF | RFLAGS.SF | RFLAGS.OF


@pytest.fixture
def runs(monkeypatch):
    """Count the VMRUNs of an engine."""
    from trapline.processors.unicorn.engine import Engine

    counted = []
    real = Engine.vmrun
    monkeypatch.setattr(Engine, "vmrun", lambda self: counted.append(1) or real(self))
    return counted


@pytest.mark.parametrize("mode", [PROTECTED_32, PAGED_32, LONG])
def test_a_vmrun_is_spared_where_little_changed(start, runs, mode):
    guest = start("cpuid", mode=mode)
    guest.exit()
    before = len(runs)
    for value in (1, 2, 3):
        guest.save.rax, guest.save.cr2, guest.save.rip = value, value, CODE
        assert guest.exit() == ExitCode.CPUID
        assert (guest.save.rax, guest.save.cr2) == (value, value)
    assert len(runs) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [("cr0", PAGED_32.cr0 | CR0.TS), ("cr4", CR4.PAE | CR4.PGE), ("kernel_gs_base", 5), ("sysenter_eip", 7)],
)
def test_what_unicorn_keeps_copies_of_takes_a_vmrun(start, runs, path, value):
    guest = start("cpuid", mode=PAGED_32)
    guest.exit()
    before = len(runs)
    setattr(guest.save, path, value)
    guest.exit()
    assert len(runs) == before + 1
    assert getattr(guest.save, path) == value


@pytest.mark.parametrize("flags", [0, STATUS, STATUS | RFLAGS.DF, RFLAGS.DF, RFLAGS.CF | RFLAGS.SF])
def test_flags_enter_and_leave(start, flags):
    guest = start("cpuid")
    guest.exit()
    guest.save.rflags = RFLAGS.ALWAYS_ONE | flags
    guest.exit()
    assert guest.save.rflags == RFLAGS.ALWAYS_ONE | flags


def test_flags_that_unicorn_has_not_yet_computed(start):
    guest = start(("mov", EAX, 0x8000_0000), ("add", EAX, EAX), "cpuid")
    guest.exit()
    assert guest.save.rflags & STATUS == RFLAGS.CF | RFLAGS.ZF | RFLAGS.PF | RFLAGS.OF


def test_a_segment_that_the_guest_loads_is_seen(start):
    guest = start("cpuid", ("mov", AX, DATA_32), ("mov", DS, AX), "cpuid")
    guest.save.ds.base = 0x10
    guest.exit()
    assert guest.save.ds.base == 0x10
    guest.save.rip += 2
    guest.exit()
    assert (guest.save.ds.selector, guest.save.ds.base) == (DATA_32, 0)


def test_a_segment_base_counts(start):
    guest = start(("mov", EBX, Mem(None, DATA)), "cpuid")
    guest.memory.write(DATA + 0x20, b"\x77\0\0\0")
    guest.save.ds.base = 0x20
    guest.exit()
    assert guest.gprs.rbx == 0x77


def test_the_shadow_is_seen_and_given_back(start):
    guest = start("sti", "cpuid", "nop", "cpuid", rflags=0)
    guest.exit()
    assert guest.control.interrupt_shadow == 1
    guest.save.rip += 2
    guest.exit()
    assert guest.control.interrupt_shadow == 0


def test_an_injected_event_after_a_change_of_everything(start):
    guest = start("cpuid", mode=LONG)
    guest.exit()
    guest.save.cr4 |= CR4.PGE
    guest.control.event_inj = encode(Event(Vector.GP, EventType.EXCEPTION, 0x18))
    guest.exit()
    assert guest.u32(guest.save.rsp) == 0x18
    assert guest.save.cr4 & CR4.PGE
