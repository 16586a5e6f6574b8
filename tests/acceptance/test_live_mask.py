"""The forced exceptions change while the guest runs, whenever somebody says so; the guest notices nothing."""

import random
import threading
import time

import pytest

from tests import lines
from tests.acceptance.runs import LIMIT, wait_for
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.processors.qemu.launch import open_qemu
from trapline.trace.files.output import LineOutput
from trapline.trace.recorder import Recorder

UD = 1 << Vector.UD
TURNS = 100_000
"""Of an empty loop, some tenths of a millisecond: so long the guest gives no sign of life."""


class Live:
    """A guest that runs in a thread of its own."""

    def __init__(self, image, folder, mask):
        self.console = folder / "console.txt"
        self.output = folder / "records.jsonl"
        self._file = self.output.open("w", encoding="ascii")
        self.recorder = Recorder(output=LineOutput(self._file))
        self.processor = open_qemu(
            guest=["-drive", f"file={image},format=raw"],
            memory=128 << 20,
            serial=["-serial", f"file:{self.console}"],
        )
        self.processor.on_records(self.recorder.add)
        self.vm = Vm(self.processor, mask=mask, recorders=(Recording(self.recorder.add),))
        self.stop = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        wait_for(lambda: self.console.exists() and self.console.read_bytes(), "the guest's first line")
        return self

    def __exit__(self, *_):
        self.processor.close()
        self._thread.join()
        self._file.close()

    @property
    def recorded(self):
        return self.recorder.tally.total

    def is_recorded(self):
        before = self.recorded
        wait_for(lambda: self.recorded > before + 100, "records")

    def is_not_recorded(self):
        before = self.recorded
        time.sleep(0.3)
        assert self.recorded == before

    @property
    def runs(self):
        return self._thread.is_alive()

    def records(self):
        return lines.records(self.output.read_text())

    def _run(self):
        self.stop = self.vm.run(time.monotonic() + LIMIT)


@pytest.fixture
def live(image, tmp_path):
    """Return a function that starts a guest which raises #UD now and then, and ends after a while."""

    def live(mask, count):
        return Live(image("udloop", N=count, WAIT=TURNS), tmp_path, mask)

    return live


def test_a_change_is_in_force_when_the_call_returns(live):
    with live(0, 30_000) as guest:
        guest.is_not_recorded()
        guest.vm.set_exception_mask(FORCEABLE)
        guest.is_recorded()
        guest.vm.set_exception_mask(FORCEABLE & ~UD)
        guest.is_not_recorded()
        guest.vm.set_exception_mask(UD)
        guest.is_recorded()
        guest.vm.set_exception_mask(0)
        guest.is_not_recorded()
        assert guest.runs, "the guest ended too early to tell anything"


def test_the_guest_does_not_notice_many_changes(live):
    count = 4_000
    dice = random.Random(1)
    changes = 0
    with live(0, count) as guest:
        while guest.runs:
            guest.vm.set_exception_mask((0, UD, FORCEABLE, FORCEABLE & ~UD)[changes % 4])
            changes += 1
            time.sleep(dice.random() / 50)
        assert guest.stop.reason is StopReason.OFF
        assert guest.console.read_text() == f"BEGIN\nCOUNT ud={count}\n"
    assert changes > 50
    records = guest.records()
    assert [record["seq"] for record in records] == list(range(guest.recorded))
    assert {record["vector"] for record in records} == {Vector.UD}
    times = [record["tsc"] for record in records]
    assert times == sorted(times)
    assert 0 < len(records) < count
