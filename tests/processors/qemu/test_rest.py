"""When QEMU is paused, and that whoever hands the mailbox over finds it running."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

import trapline
from trapline.api import STOP, Machine
from trapline.arch.vectors import Vector
from trapline.hypervisor.stop import StopReason
from trapline.processors.qemu import rest as module
from trapline.processors.qemu.rest import Rest
from trapline.report.result import Ending
from trapline.session.session import Session

FAULTS = 400
UD_AT = 0x7C00 + 20


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.001)


class Qemu:
    """Is paused and resumed, and notes how."""

    def __init__(self, state="running"):
        self.state, self.commands = state, []

    def run_state(self):
        return self.state

    def command(self, name, arguments=None, *, seconds=None):
        self.commands.append(name)
        self.state = {"stop": "paused", "cont": "running"}[name]


class Keeper:
    def __init__(self, *, running=False, kept_for=10.0):
        self.running, self.kept_for = running, kept_for


@pytest.fixture
def resting(monkeypatch):
    monkeypatch.setattr(module, "_LOOK", 0.001)
    started = []

    def start(qemu, keeper):
        started.append(Rest(qemu, keeper))
        return started[-1]

    yield start
    for one in started:
        one.close()
        one.close()


def test_a_machine_that_is_kept_is_paused_once_until_it_is_handed_over(resting):
    qemu, keeper, told = Qemu(), Keeper(running=True), []
    rest = resting(qemu, keeper)
    rest.on_pause = lambda: told.append(qemu.state)
    keeper.running = False
    wait_until(lambda: qemu.state == "paused" and told)
    time.sleep(0.02)
    keeper.running = True
    assert rest.active
    rest.end()
    rest.end()
    time.sleep(0.02)
    assert (qemu.commands, told, rest.active) == (["stop", "cont"], ["paused"], False)


@pytest.mark.parametrize(
    ("state", "keeper"),
    [("running", Keeper(running=True)), ("running", Keeper(kept_for=0.1)), ("paused", Keeper())],
    ids=["it runs", "not for long", "the user has paused it"],
)
def test_what_is_left_alone(resting, state, keeper):
    qemu = Qemu(state)
    rest = resting(qemu, keeper)
    time.sleep(0.05)
    assert (qemu.commands, rest.active) == ([], False)


def test_one_that_is_known_to_be_kept_is_paused_at_once(resting):
    qemu, keeper = Qemu(), Keeper(kept_for=0.0)
    rest = resting(qemu, keeper)
    time.sleep(0.02)
    assert qemu.commands == []
    rest.hurry()
    wait_until(lambda: qemu.state == "paused")
    rest.end()
    time.sleep(0.02)
    assert qemu.commands == ["stop", "cont"]  # it is one time that was known


def test_one_that_runs_is_not_hurried(resting):
    qemu, keeper = Qemu(), Keeper(running=True, kept_for=0.0)
    resting(qemu, keeper).hurry()
    time.sleep(0.02)
    keeper.running = False
    time.sleep(0.02)
    assert qemu.commands == []


def test_it_is_not_paused_while_it_has_to_run(resting):
    qemu, keeper = Qemu(), Keeper()
    rest = resting(qemu, keeper)
    wait_until(lambda: qemu.state == "paused")
    with rest.awake():
        assert qemu.state == "running"
        time.sleep(0.05)
        assert qemu.commands == ["stop", "cont"]
    wait_until(lambda: qemu.state == "paused")


def test_whoever_hands_over_finds_it_running(resting, monkeypatch):
    qemu, keeper = Qemu(), Keeper()
    rest = resting(qemu, keeper)
    chance = random.Random(1)
    for _ in range(300):
        time.sleep(chance.choice((0, 0.0005, 0.001, 0.002)))
        keeper.running = True
        if rest.active:
            rest.end()
        assert qemu.state == "running"
        keeper.running = False
    assert "stop" in qemu.commands


def processor_time(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("breaks", [False, True], ids=["", "with a breakpoint"])
def test_a_guest_that_is_held_takes_no_core_and_goes_on(tmp_path, breaks, cpus):
    guest = tmp_path / "guest.img"
    guest.write_bytes(ud_sector())
    with Machine(guest, processor="qemu", accel="tcg", cpus=cpus, exceptions="ud") as machine:
        seen = []

        @machine.on(Vector.UD)
        def look(exc):
            seen.append(exc.rip)
            return STOP if len(seen) % 100 == 0 else None

        hits = 0
        if breaks:
            machine.breakpoints.add(UD_AT)
        while (stop := machine.run(timeout=120)).reason in (StopReason.EXCEPTION, StopReason.BREAKPOINT):
            hits += stop.reason is StopReason.BREAKPOINT
            if len(seen) in (100, 200) and not hits % 100:
                held(machine)
        assert (stop.reason, len(seen)) == (StopReason.RESET, FAULTS)
        assert hits == (FAULTS if breaks else 0)


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("cpus", [1, 2])
def test_a_machine_whose_run_is_over_does_not_poll_while_it_is_explained(monkeypatch, cpus):
    monkeypatch.setattr(module, "_LONG", 1e9)
    explanation, states = Session.explanation, []

    def look(session, stop):
        wait_until(lambda: session.processor._machine.qmp.run_state() == "paused")
        states.append(stop.reason)
        return explanation(session, stop)

    monkeypatch.setattr(Session, "explanation", look)
    run = trapline.run("sample:gate-not-present", processor="qemu", accel="tcg", cpus=cpus, timeout=60)
    assert (states, run.ending) == ([StopReason.SHUTDOWN], Ending.SHUTDOWN)
    assert "IDT entry 6 (#UD) is not present" in run.explanation.cause


def held(machine):
    """Wait until QEMU is paused, and see that it then does nothing."""
    processor = machine.session.processor
    wait_until(lambda: processor._machine.qmp.run_state() == "paused")
    pid = processor._machine.qemu.process.pid
    before = processor_time(pid)
    time.sleep(0.5)
    assert processor_time(pid) - before < 0.25


def ud_sector():
    """Return a boot sector that raises #UD, and skips it, again and again, and then resets the machine."""
    handler = 0x7C00 + 40
    code = bytes.fromhex("31c0 8ed8 c7061800") + handler.to_bytes(2, "little") + bytes.fromhex("a31a00 66b9")
    code += FAULTS.to_bytes(4, "little")
    code = code.ljust(UD_AT - 0x7C00, b"\x90") + bytes.fromhex("0f0b 6649 75fa b0fe e664 f4")
    code = code.ljust(40, b"\x90") + bytes.fromhex("55 89e5 83460202 5d cf")
    return code.ljust(510, b"\0") + b"\x55\xaa"
