"""Commands to the monitor, which a thread plays: what the host does until the answer is there."""

import threading
import time

import pytest

from tests.processors.qemu.scripted_qemu import Process
from trapline.errors import ProcessorLost
from trapline.processors.qemu.handover import Handover
from trapline.processors.qemu.layout import SIZE, Command, Owner, SharedMemory

SECONDS = 0.3


class Qemu:
    def __init__(self):
        self.process = Process()


class Quiet:
    """A watchdog, damage and resets, none of which has anything to say."""

    def complaint(self, since):
        return None

    def came(self):
        return False


@pytest.fixture
def handover():
    shared = SharedMemory(memoryview(bytearray(SIZE)))
    shared.mailbox.owner = Owner.HOST
    return Handover(Qemu(), shared, Quiet(), Quiet(), Quiet())


def answer(handover, seconds):
    time.sleep(seconds)
    handover._mailbox.owner = Owner.HOST


def test_a_slow_answer_is_waited_for_without_a_core(handover):
    """Where there are fewer cores than CPUs the monitor needs it: each command took a turn of the scheduler's, 4 ms."""
    monitor = threading.Thread(target=answer, args=(handover, SECONDS))
    monitor.start()
    started, used = time.perf_counter(), time.thread_time()
    handover.call(Command.NOTE_TSC)
    used, taken = time.thread_time() - used, time.perf_counter() - started
    monitor.join()
    assert taken >= SECONDS * 0.9
    assert used < taken / 2


def test_a_quick_answer_is_not_slept_for(handover, monkeypatch):
    monkeypatch.setattr(handover, "give", lambda command: None)  # answered already
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("slept"))
    handover.call(Command.NOTE_TSC)
    assert handover.statistics.exits == 1


def test_the_end_of_qemu_is_noticed(handover):
    handover._qemu.process.returncode = 1
    with pytest.raises(ProcessorLost, match="QEMU ended while the guest was stopped"):
        handover.call(Command.NOTE_TSC)
