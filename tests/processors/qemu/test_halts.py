import pytest

from trapline.arch.vmcb import Vmcb
from trapline.devices.chips import ChipState, PicState
from trapline.machine.processor import Outcome
from trapline.processors.qemu.halts import Halts, is_halted_for_good
from trapline.processors.qemu.inspection import parse_chips
from trapline.processors.qemu.kicks import Kicks
from trapline.processors.qemu.nmis import Nmis

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


@pytest.mark.parametrize(
    ("icr", "starts"),
    [(0xC4610, False), (0xC4608, True), (0x4500, True), (0x8500, False), (0x4608, True), (0x40030, False), (0, False)],
)
def test_a_guest_that_starts_a_cpu(icr, starts):
    """But for what SeaBIOS does itself."""
    local = f"ICR\t 0x{icr:08x} physical edge assert all\nICR2\t 0x01000000\n"
    assert parse_chips(PICS, local, HALTED).starts_cpu is starts


class Handshake:
    on_quiet = None

    def wake(self):
        """Nothing waits."""


class Qmp:
    def __init__(self, registers, state="running"):
        self.registers, self.state = registers, state
        self.commands = []

    def command(self, name):
        self.commands.append(name)

    def ask_human(self, line):
        return self.registers

    def run_state(self):
        return self.state


def look(qmp):
    """Let a second pass twice; return what the kick would mean that followed, and how often it kicked."""
    kicks = []
    halts = Halts(qmp, lambda: kicks.append(1))
    halts.look()
    halts.look()
    return halts.take(), len(kicks)


def test_a_guest_that_halted_for_good_is_kicked_once():
    assert look(Qmp(HALTED)) == (Outcome.HALTED, 1)


def test_what_was_found_before_a_reset_is_void():
    """QEMU may say that a machine runs which is about to sleep; waking resets it."""
    kicks = []
    halts = Halts(Qmp(HALTED), lambda: kicks.append(1))
    halts.look()
    halts.forget()
    assert halts.take() is Outcome.KICKED
    halts.look()
    assert (halts.take(), len(kicks)) == (Outcome.HALTED, 2)


@pytest.mark.parametrize("qmp", [Qmp(REGISTERS.format(flags=0x246, smm=0, hlt=1)), Qmp(HALTED, "suspended")])
def test_others_go_on(qmp):
    assert look(qmp) == (Outcome.KICKED, 0)


def test_where_qemu_cannot_be_asked_nothing_is_done_while_it_is_quiet():
    handshake = Handshake()
    Kicks(handshake, Qmp(HALTED), None, Nmis(Vmcb()), watches=False)
    assert handshake.on_quiet is None


def test_a_kick_that_was_lost_is_sent_again():
    handshake, qmp = Handshake(), Qmp(REGISTERS.format(flags=0x246, smm=0, hlt=0))
    kicks = Kicks(handshake, qmp, None, Nmis(Vmcb()), watches=True)
    kicks.begin()
    handshake.on_quiet()
    assert qmp.commands == []
    kicks.kick()
    kicks.inject()
    handshake.on_quiet()
    assert qmp.commands == ["inject-nmi"] * 2
    assert kicks.withdraw()
    handshake.on_quiet()
    assert len(qmp.commands) == 2


def test_a_kick_before_the_guest_has_begun_needs_no_nmi():
    handshake, qmp, nmis = Handshake(), Qmp(REGISTERS.format(flags=0x246, smm=0, hlt=0)), Nmis(Vmcb())
    kicks = Kicks(handshake, qmp, None, nmis, watches=True)
    kicks.kick()
    kicks.inject()
    handshake.on_quiet()
    assert qmp.commands == []
    assert not nmis.foreign  # the guest's first NMI is its own
    assert kicks.withdraw()
