"""Waiting for the monitor, which has handed over already."""

from types import SimpleNamespace

import pytest

from tests.processors.qemu.scripted_qemu import Qemu
from trapline.machine.processor import Outcome
from trapline.processors.qemu.handshake import Handshake
from trapline.processors.qemu.handshakes import Handshakes
from trapline.processors.qemu.layout import Owner


class Quiet:
    """QMP, a watchdog, damage and resets, none of which has anything to say."""


@pytest.fixture
def qemu(memory):
    qemu = Qemu([], memory)
    yield qemu
    qemu.close()


def one_cpu(qemu):
    return Handshake(qemu, qemu.shared, lambda: None, Quiet(), Quiet(), Quiet())


def several_cpus(qemu):
    machine = SimpleNamespace(qemu=qemu, qmp=Quiet(), watchdog=Quiet(), damage=Quiet(), resets=Quiet())
    handshakes = Handshakes(machine, qemu.shared, lambda: None, ())
    handshakes.shared_rest.close()
    return handshakes


@pytest.mark.parametrize("opened", [one_cpu, several_cpus])
def test_no_byte_of_the_doorbell_is_left(qemu, opened):
    """The host does not poll, where no core is free, and neither does it have to sleep: the mailbox is back."""
    handshake = opened(qemu)
    try:
        qemu._bell.send(bytes(3))
        qemu.shared.mailbox.owner = Owner.HOST
        assert handshake.wait(None) is Outcome.VMEXIT
        with pytest.raises(BlockingIOError):
            qemu.doorbell.recv(1)
    finally:
        handshake.close()
