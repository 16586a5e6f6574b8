import pytest

from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vmcb import SaveArea
from trapline.devices.chips import ChipState, PicState
from trapline.explain.chips import describe_chips, describe_waiting

AS_BIOS = PicState(0, 0xB8, 0, 8)
REMAPPED = PicState(0, 0xFC, 0, 0x20)
SLAVE = PicState(0, 0xFF, 0, 0x70)


def told(state, *, cr0=CR0.PE, rflags=RFLAGS.IF, halted=True, idt=0x1000):
    save = SaveArea()
    save.idtr.base = idt
    save.cr0, save.rflags = cr0, rflags
    return list(describe_chips(state, save, halted=halted))


def test_a_guest_that_starts_a_cpu():
    sentence = "The guest sent an INIT or startup IPI to another CPU: its machine has one."
    assert told(ChipState(REMAPPED, SLAVE, starts_cpu=True)) == [sentence]


@pytest.mark.parametrize("quiet", [AS_BIOS, REMAPPED])
def test_a_guest_that_waits_is_not_accused(quiet):
    assert told(ChipState(quiet, SLAVE)) == []


@pytest.mark.parametrize(
    "state",
    [
        ChipState(AS_BIOS._replace(isr=1), SLAVE),
        ChipState(AS_BIOS, SLAVE, arrived=1 << 8),
    ],
)
def test_an_interrupt_that_is_not_an_exception(state):
    (text,) = told(state, rflags=0)
    assert text.startswith("IRQ 0 arrives at vector 8, that of #DF")
    assert "not remapped" in text
    assert told(state, cr0=0, rflags=0) == []  # real mode, where it is right


def test_firmware_in_protected_mode_is_not_accused():
    state = ChipState(AS_BIOS._replace(isr=1), SLAVE)
    assert told(state, rflags=0, idt=0) == []


def test_a_lost_end_of_interrupt():
    state = ChipState(REMAPPED._replace(isr=2), SLAVE._replace(isr=0x10))
    assert [text[: text.index(" is")] for text in told(state)] == ["IRQ 1", "IRQ 12"]
    assert told(state, halted=False) == []  # it may be in the handler
    assert told(state, rflags=0) == []


def test_a_lost_end_of_interrupt_of_the_local_apic():
    (text,) = told(ChipState(REMAPPED, SLAVE, in_service=1 << 0x30))
    assert "vector 0x30 in service" in text


def test_a20():
    (text,) = told(ChipState(AS_BIOS, SLAVE, a20=False), cr0=0, rflags=0, halted=False)
    assert text.startswith("A20 is off")


def test_the_line_of_the_slave_is_told_once():
    state = ChipState(REMAPPED._replace(isr=4), SLAVE._replace(isr=1))
    assert [text[:5] for text in told(state)] == ["IRQ 8"]


@pytest.mark.parametrize(
    ("rflags", "irr", "expected"),
    [
        (0, 1, ["IRQ 0 is pending, but not taken, since RFLAGS.IF is clear: the HLT waits for ever."]),
        (0, 8, []),  # masked as well
        (RFLAGS.IF, 0x18, ["IRQ 3 and IRQ 4 are pending, but masked (IMR 0xfc): the HLT waits for ever."]),
        (RFLAGS.IF, 4, []),  # the slave's line
        (RFLAGS.IF, 0, []),
    ],
)
def test_interrupts_that_a_guest_waits_for_in_vain(rflags, irr, expected):
    save = SaveArea()
    save.rflags = rflags
    assert list(describe_waiting(ChipState(REMAPPED._replace(irr=irr), SLAVE), save)) == expected
