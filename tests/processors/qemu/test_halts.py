import pytest

from trapline.devices.chips import ChipState, PicState
from trapline.machine.processor import Outcome
from trapline.processors.qemu.halts import Halts, is_halted_for_good
from trapline.processors.qemu.inspection import parse_chips

REGISTERS = "RIP=00000000001001e8 RFL={flags:08x} [---Z-P-] CPL=0 II=0 A20=1 SMM={smm} HLT={hlt}"
HALTED = REGISTERS.format(flags=0x46, smm=0, hlt=1)
PICS = """pic1: irr=00 imr=8e isr=00 hprio=0 irq_base=70 rr_sel=0 elcr=0c fnm=0
pic0: irr=01 imr=b8 isr=02 hprio=0 irq_base=08 rr_sel=0 elcr=00 fnm=0
"""


@pytest.mark.parametrize(
    ("flags", "smm", "hlt", "expected"),
    [(0x46, 0, 1, True), (0x246, 0, 1, False), (0x46, 1, 1, False), (0x46, 0, 0, False)],
)
def test_what_a_halt_for_good_is(flags, smm, hlt, expected):
    assert is_halted_for_good(REGISTERS.format(flags=flags, smm=smm, hlt=hlt)) is expected


def test_no_answer_is_not_a_halt():
    assert not is_halted_for_good("")


def test_the_state_of_the_controllers():
    assert parse_chips(PICS, "ISR\t 48 239\nIRR\t 7\n", HALTED) == ChipState(
        PicState(1, 0xB8, 2, 8), PicState(0, 0x8E, 0, 0x70), 1 << 48 | 1 << 239
    )
    assert parse_chips(PICS, "ISR\t (none)\nIRR\t 7\n", "").in_service == 0
    assert parse_chips("", "", "") is None
    assert not parse_chips(PICS, "", HALTED.replace("A20=1", "A20=0")).a20


class Handshake:
    """Answers with outcomes, one after the other."""

    reported = True

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def wait(self, deadline):
        return self.outcomes.pop(0)


class Qmp:
    def __init__(self, registers, state="running"):
        self.registers, self.state = registers, state

    def ask_human(self, line):
        return self.registers

    def run_state(self):
        return self.state


def halts(qmp, *outcomes):
    kicks = []
    return Halts(Handshake(*outcomes), qmp, lambda: kicks.append(1), watches=True), kicks


def test_a_guest_that_halted_for_good_is_kicked():
    watch, kicks = halts(Qmp(HALTED), Outcome.DEADLINE, Outcome.VMEXIT)
    assert watch.wait(None) is Outcome.VMEXIT
    assert (kicks, watch.take(), watch.take()) == ([1], Outcome.HALTED, Outcome.KICKED)


@pytest.mark.parametrize("qmp", [Qmp(REGISTERS.format(flags=0x246, smm=0, hlt=1)), Qmp(HALTED, "suspended")])
def test_others_go_on(qmp):
    watch, kicks = halts(qmp, Outcome.DEADLINE, Outcome.DEADLINE, Outcome.VMEXIT)
    assert watch.wait(None) is Outcome.VMEXIT
    assert (kicks, watch.take()) == ([], Outcome.KICKED)


def test_the_deadline_of_the_caller_is_kept():
    watch, kicks = halts(Qmp(HALTED), Outcome.DEADLINE)
    assert watch.wait(0.0) is Outcome.DEADLINE
    assert kicks == []
