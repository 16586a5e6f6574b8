from types import SimpleNamespace

import pytest

from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.vmcb import Vmcb
from trapline.processors.qemu.board_nmis import BoardNmis
from trapline.processors.qemu.nmis import Nmis


class Aside:
    """Absorbs what is pending, unless an SMI comes first."""

    smi_first = False

    def __init__(self):
        self.absorbed = 0

    def absorb_nmi(self):
        self.absorbed += not self.smi_first
        return not self.smi_first


@pytest.fixture
def cpu():
    vmcb, aside, sent = Vmcb(), Aside(), []
    nmis = BoardNmis(vmcb, Nmis(vmcb), aside, lambda: sent.append("nmi"))
    return SimpleNamespace(vmcb=vmcb, aside=aside, sent=sent, nmis=nmis)


def test_one_that_certainly_comes_is_waited_for(cpu):
    cpu.nmis.expect()
    cpu.nmis.settle()
    assert (cpu.nmis.foreign, cpu.aside.absorbed) == (True, 0)


@pytest.mark.parametrize("others", [[], [True]])
def test_one_of_qmp_may_be_masked_and_is_forgotten(cpu, others):
    cpu.nmis.expect(by_qmp=True)
    for by_qmp in others:
        cpu.nmis.expect(by_qmp=by_qmp)
    cpu.nmis.settle()
    assert (cpu.nmis.foreign, cpu.aside.absorbed) == (False, 1)


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_of_two_one_is_certain(cpu, order):
    for by_qmp in order:
        cpu.nmis.expect(by_qmp=by_qmp)
    cpu.nmis.settle()
    assert cpu.nmis.foreign


@pytest.mark.parametrize("by", ["exit", "intercept"])
def test_it_may_wait_for_the_end_of_the_guests_own(cpu, by):
    cpu.nmis.expect(by_qmp=True)
    if by == "exit":
        cpu.vmcb.control.exit_code = ExitCode.IRET
    else:
        set_intercept(cpu.vmcb.control, ExitCode.IRET)
    cpu.nmis.settle()
    assert (cpu.nmis.foreign, cpu.aside.absorbed) == (True, 0)


def test_the_guests_own_is_sent_again_until_it_has_taken_it(cpu):
    for taken in (False, True):
        cpu.nmis.note()
        cpu.nmis.expect()
        if taken:
            cpu.nmis.forget_own()
        cpu.nmis.absorb()
    assert cpu.sent == ["nmi"]
    cpu.nmis.note()
    cpu.nmis.reset()
    cpu.nmis.absorb()
    assert cpu.sent == ["nmi"]


def test_an_smi_comes_first(cpu):
    cpu.aside.smi_first = True
    cpu.nmis.note()
    cpu.nmis.expect()
    cpu.nmis.absorb()
    assert (cpu.nmis.foreign, cpu.sent) == (True, [])
