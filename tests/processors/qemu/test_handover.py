"""Commands to the monitor, which a thread plays: what the host does until the answer is there."""

import shutil
import threading
import time

import pytest

from tests.processors.qemu.scripted_qemu import Process
from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome
from trapline.processors.qemu.handover import Handover
from trapline.processors.qemu.launch import open_qemu
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


def test_what_stops_the_machine_meanwhile_is_looked_for(handover):
    """A breakpoint of another CPU stops the monitor as well, until somebody has taken note of it."""
    calling = []

    def take_note():
        calling.append(handover.calling)
        if len(calling) == 3:
            handover._mailbox.owner = Owner.HOST

    handover.on_wait = take_note
    anyway = threading.Timer(5.0, answer, (handover, 0))
    anyway.start()
    handover.call(Command.NOTE_TSC)
    anyway.cancel()
    assert calling == [True] * 3
    assert not handover.calling


def test_a_quick_answer_is_not_slept_for(handover, monkeypatch):
    monkeypatch.setattr(handover, "give", lambda command: None)  # answered already
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("slept"))
    handover.call(Command.NOTE_TSC)
    assert not handover.running


def test_a_command_is_not_counted_as_an_exit_of_the_guest(handover):
    handover._mailbox.owner = Owner.HOST
    handover.take()
    answering = threading.Thread(target=answer, args=(handover, SECONDS))
    answering.start()
    handover.call(Command.NOTE_TSC)
    answering.join()
    assert handover.statistics.exits == 1


def test_the_monitor_rings_no_doorbell_that_nobody_listens_for(handover, monkeypatch):
    attended = []
    monkeypatch.setattr(handover, "give", lambda command: attended.append(handover._mailbox.attended))
    handover.attend(0, None)
    handover.call(Command.NOTE_TSC)
    assert attended == [1]


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_there_may_be_more_commands_than_doorbells_in_a_socket():
    with open_qemu(guest=["-nodefaults"], memory=16 << 20) as processor:
        assert processor.run(None) is Outcome.RESET
        handover = processor._handshake
        handover.attend(0, None)
        for _ in range(1000):
            handover.call(Command.NOTE_TSC)
        assert not handover.running


def test_the_end_of_qemu_is_noticed(handover):
    handover._qemu.process.returncode = 1
    with pytest.raises(ProcessorLost, match="QEMU ended while the guest was stopped"):
        handover.call(Command.NOTE_TSC)
