import pytest

from trapline.arch.consistency import RULES, why_invalid
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.layout import size_of
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb

LONG_CODE = 0xA9B


@pytest.fixture
def vmcb():
    """A VMCB that VMRUN takes, in 64-bit mode."""
    vmcb = Vmcb.from_buffer(bytearray(size_of(Vmcb)))
    save = vmcb.save
    save.efer = EFER.SVME | EFER.LME | EFER.LMA
    save.cr0, save.cr4 = CR0.PE | CR0.PG, CR4.PAE
    save.dr6, save.dr7 = DR6.FIXED, DR7.FIXED
    save.cs.attributes = LONG_CODE
    vmcb.control.asid = 1
    set_intercept(vmcb.control, ExitCode.VMRUN)
    return vmcb


def test_a_state_as_it_should_be_is_taken(vmcb):
    assert why_invalid(vmcb) is None
    assert not [rule for rule in RULES if rule.broken(vmcb)]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("efer", EFER.LME | EFER.LMA, "EFER.SVME is clear"),
        ("cr0", CR0.PE | CR0.PG | CR0.NW, "CR0.CD is clear and CR0.NW is set"),
        ("cr0", CR0.PE | CR0.PG | 1 << 32, "bits 63:32 of CR0 are not zero"),
        ("cr3", 1 << 52, "a reserved bit of CR3 is set"),
        ("cr4", CR4.PAE | 1 << 13, "a reserved bit of CR4 is set"),
        ("cr4", CR4.PAE | 1 << 63, "a reserved bit of CR4 is set"),
        ("dr6", 1 << 63, "bits 63:32 of DR6 are not zero"),
        ("dr7", 1 << 32, "bits 63:32 of DR7 are not zero"),
        ("efer", EFER.SVME | 1 << 9, "a reserved bit of EFER is set"),
        ("cr4", 0, "EFER.LME and CR0.PG are set and CR4.PAE is clear"),
        ("cr0", CR0.PG, "EFER.LME and CR0.PG are set and CR0.PE is clear"),
    ],
)
def test_a_broken_rule_is_named(vmcb, name, value, words):
    setattr(vmcb.save, name, value)
    assert why_invalid(vmcb) == words
    assert [rule.text for rule in RULES if rule.broken(vmcb)] == [words]


def test_code_of_32_and_64_bits_at_once_is_refused_in_long_mode_only(vmcb):
    vmcb.save.cs.attributes = LONG_CODE | 1 << 10
    assert why_invalid(vmcb) == "CS.L and CS.D are both set in long mode"
    vmcb.save.efer = EFER.SVME
    assert why_invalid(vmcb) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cr0", CR0.CD | CR0.NW | CR0.PE | CR0.PG),
        ("cr0", CR0.CD | CR0.PE | CR0.PG),
        ("cr3", 0x000F_FFFF_FFFF_F018),
        ("cr4", CR4.PAE | CR4.SMEP | CR4.LA57 | CR4.CET),
        ("efer", EFER.SVME | EFER.LME | EFER.LMA | EFER.NXE | EFER.SCE),
    ],
)
def test_bits_that_have_a_meaning_are_taken(vmcb, name, value):
    setattr(vmcb.save, name, value)
    assert why_invalid(vmcb) is None


@pytest.mark.parametrize(("efer", "cr0"), [(EFER.SVME, CR0.PE | CR0.PG), (EFER.SVME | EFER.LME, CR0.PE)])
def test_rules_of_long_mode_are_for_long_mode(vmcb, efer, cr0):
    save = vmcb.save
    save.efer, save.cr0, save.cr3, save.cr4 = efer, cr0, 1 << 60, 0
    assert why_invalid(vmcb) is None


def test_vmrun_must_be_intercepted(vmcb):
    vmcb.control.intercept_misc2 = 0
    assert why_invalid(vmcb) == "the VMRUN intercept is clear"


def test_asid_0_is_the_hosts(vmcb):
    vmcb.control.asid = 0
    assert why_invalid(vmcb) == "the ASID is zero"


@pytest.mark.parametrize(
    "event",
    [
        Event(0x20, EventType.INTR),
        Event(Vector.NMI, EventType.NMI),
        Event(0x80, EventType.SOFT),
        Event(Vector.GP, EventType.EXCEPTION, 0),
        Event(Vector.BP, EventType.EXCEPTION),
        Event(Vector.DF, EventType.EXCEPTION, 0),
    ],
)
def test_events_of_each_type_can_be_injected(vmcb, event):
    vmcb.control.event_inj = encode(event)
    assert why_invalid(vmcb) is None


@pytest.mark.parametrize(
    "event",
    [
        *(Event(0x20, kind) for kind in (1, 5, 6, 7)),
        Event(Vector.NMI, EventType.EXCEPTION),
        Event(9, EventType.EXCEPTION),
        Event(31, EventType.EXCEPTION),
        Event(32, EventType.EXCEPTION),
        Event(255, EventType.EXCEPTION),
        Event(Vector.BR, EventType.EXCEPTION),
    ],
)
def test_events_that_cannot_be_are_refused(vmcb, event):
    vmcb.control.event_inj = encode(event)
    assert why_invalid(vmcb) == "EVENTINJ holds an event that cannot be injected"
    vmcb.control.event_inj &= ~(1 << 31)
    assert why_invalid(vmcb) is None


def test_bound_exists_outside_64_bit_code(vmcb):
    vmcb.control.event_inj = encode(Event(Vector.BR, EventType.EXCEPTION))
    vmcb.save.cs.attributes = 0xC9B
    assert why_invalid(vmcb) is None


def test_the_first_broken_rule_is_named(vmcb):
    vmcb.save.efer = vmcb.control.asid = 0
    assert why_invalid(vmcb) == RULES[0].text
