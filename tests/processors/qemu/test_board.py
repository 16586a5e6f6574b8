"""What a board does whatever its CPUs come back with."""

import time
from types import SimpleNamespace

import pytest

from trapline.machine.processor import Outcome
from trapline.processors.qemu.board import QemuBoard
from trapline.processors.qemu.handshake import SELDOM


@pytest.fixture
def board():
    """A board that has been started, whose only CPU has nothing to tell."""
    board = QemuBoard.__new__(QemuBoard)
    board.cpus, board._turns, board._alone = (SimpleNamespace(held=None, leaves=False),), 0, False
    board._kicks = SimpleNamespace(take=lambda executing: None, begun=True)
    board._machine = SimpleNamespace(power_on=SimpleNamespace(leave_firmware=lambda: None))
    board._stops = SimpleNamespace(apply=lambda executing: None)
    board._gathering = SimpleNamespace(clear=lambda: None)
    board._outcomes = SimpleNamespace(take=lambda executing: None)
    return board


def test_the_time_is_up_though_a_cpu_comes_back_each_time(board):
    """While the exit of one is handled another one's comes: the host never has to wait."""
    board._outcomes.take = lambda executing: (0, Outcome.VMEXIT)
    past = time.monotonic() - 1
    assert Outcome.DEADLINE in [board.run(past)[1] for _ in range(SELDOM + 1)]
    assert Outcome.DEADLINE not in [board.run(None)[1] for _ in range(SELDOM + 1)]


def test_the_time_is_up_though_what_comes_back_goes_on_at_once(board, monkeypatch):
    """As at stores to the local APIC, of which the hypervisor does not know."""
    waits = iter([Outcome.VMEXIT] * 2 * SELDOM)
    monkeypatch.setattr(board, "_wait", lambda deadline: next(waits))
    assert board.run(time.monotonic() - 1) == (0, Outcome.DEADLINE)
    with pytest.raises(StopIteration):
        board.run(None)
