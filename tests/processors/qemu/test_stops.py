import contextlib

import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.registers import EFER, RFLAGS
from trapline.errors import ProcessorError, UsageError
from trapline.machine.processor import Outcome, Watchpoint
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu import firmware
from trapline.processors.qemu.layout import PML4_AT, SIZE, base_for
from trapline.processors.qemu.places import changes, distinct, why_unavailable
from trapline.processors.qemu.stops import Stops

DB, DB_EXIT = 1 << 1, 0x41
BASE = base_for(40)
NONE = (frozenset(), ())
W, R = Watchpoint(0x8000, 4, False), Watchpoint(0x8000, 8, True)


class Stub:
    """Plays QEMU's gdbstub, whose CPU is where `registers` says."""

    def __init__(self, shared):
        self.save, self.control = shared.vmcb.save, shared.vmcb.control
        self.sent, self.replies = [], []
        self.byte, self.stored = b"90", b"OK"
        self.exit = ExitCode.SWINT
        self.restored = None
        self.at(0x4000)

    def at(self, rip, *, cr3=0, efer=EFER.SVME, smm=0):
        self.save.rip = rip
        self.text = f"EIP={rip:08x} SMM={smm} HLT=0\nCS =0008 00000000 ffffffff 00c09b00\nCR3={cr3:x}\nEFER={efer:x}\n"

    def human_command(self, line):
        self.sent.append(line)

    def send(self, *payloads):
        self.sent += payloads
        for payload in payloads:
            if payload == b"s" and self.exit is not None:
                self.control.exit_code = self.exit
            if payload != b"c":
                answers = {b"q": b"PacketSize=1000", b"m": self.byte, b"M": self.stored, b"s": b"T05thread:01;"}
                self.replies.append(answers.get(payload[:1], b"OK"))

    def receive(self):
        return self.replies.pop(0)

    poll = receive

    def command(self, payload):
        self.send(payload)
        return self.receive()

    def interrupt(self):
        self.sent.append(b"\x03")

    def monitor(self, line):
        self.sent.append(line)
        return self.text

    def stop(self, reply=b"T05thread:01;"):
        self.replies.append(reply)
        self.sent.clear()


@pytest.fixture
def stub(shared):
    return Stub(shared)


@pytest.fixture
def wrapped(bios):
    return firmware.wrap(bios, unlock_svm=True)


@pytest.fixture
def make(stub, shared):
    return lambda why=None: Stops(stub, stub, shared, ScriptedMemory(0x10000), why, contextlib.nullcontext)


@pytest.fixture
def stops(make, stub):
    """With a breakpoint and a watchpoint set."""
    stops = make()
    stops.set_breakpoints(frozenset((0x4000,)))
    stops.set_watchpoints((W,))
    stops.apply()
    stub.sent.clear()
    return stops


def test_the_packets_from_one_set_to_the_next():
    assert changes(NONE, NONE) == []
    assert changes(NONE, (frozenset((2, 1)), ())) == [b"Z0,1,1", b"Z0,2,1"]
    assert changes((frozenset((1, 2)), ()), (frozenset((2, 0xABC)), ())) == [b"z0,1,1", b"Z0,abc,1"]
    assert changes(NONE, (frozenset(), (W, R))) == [b"Z4,8000,8", b"Z2,8000,4"]  # the last that is set comes first
    assert changes((frozenset(), (W, R)), (frozenset(), (W,))) == [b"z2,8000,4", b"z4,8000,8", b"Z2,8000,4"]


def test_of_watchpoints_that_look_alike_the_widest():
    assert distinct((W, R)) == (W, R)
    assert distinct((W, W._replace(size=16), W._replace(size=1))) == (W._replace(size=16),)


def test_the_stub_is_started_when_something_is_set(make, stub):
    stops = make()
    stops.apply()
    assert (stub.sent, bool(stops)) == ([], False)
    stops.set_breakpoints(frozenset((0x4000,)))
    assert (stub.sent, bool(stops)) == ([], True)
    stops.apply()
    assert stub.sent == ["gdbserver chardev:trapline.gdb", b"qSupported", b"Z0,4000,1", b"c"]
    stub.sent.clear()
    stops.apply()
    assert stub.sent == []
    stops.set_breakpoints(frozenset())
    stops.apply()
    assert stub.sent == [b"\x03", b"z0,4000,1", b"c"]


def test_what_the_stub_refuses_is_an_error(make, stub, monkeypatch):
    stops = make()
    stops.set_watchpoints((Watchpoint(0x8000, 0, False),))
    monkeypatch.setattr(stub, "receive", lambda: b"E22" if stub.replies.pop(0) == b"OK" else b"PacketSize")
    with pytest.raises(ProcessorError, match="refuses Z2,8000,0"):
        stops.apply()


def test_they_need_tcg_and_leave_the_monitor_alone(make):
    kvm = make(why_unavailable("kvm", ()))
    kvm.set_breakpoints(frozenset())
    with pytest.raises(UsageError, match="--accel tcg has them"):
        kvm.set_breakpoints(frozenset((1,)))
    with pytest.raises(UsageError, match="--accel tcg has them"):
        kvm.set_watchpoints((W,))
    stops = make()
    for address, size in ((BASE, 1), (BASE + SIZE - 1, 1), (BASE - 1, 2)):
        with pytest.raises(UsageError, match="trapline's monitor"):
            stops.set_watchpoints((Watchpoint(address, size, False),))
    stops.set_breakpoints(frozenset((BASE - 1, BASE + SIZE)))


@pytest.mark.parametrize("option", ["-s", "-gdb", "--gdb"])
def test_the_users_own_gdb_keeps_the_stub(option):
    assert "uses already" in why_unavailable("tcg", ("qemu", "-machine", "pc", option))
    assert why_unavailable("tcg", ("qemu", "-smp", "1")) is None


def test_a_breakpoint_forces_an_exit_and_puts_the_byte_back(stops, stub):
    stub.stop()
    stops.take()
    restore = b"M4000,1:90"
    assert stub.sent == ["info registers", b"m4000,1", b"M4000,1:cc", b"s", restore, b"z0,4000,1", b"c"]
    assert (stops.take_outcome(), stops.hit) == (Outcome.BREAKPOINT, None)
    assert stops.take_outcome() is None


def test_a_watchpoint_says_which(stops, stub):
    stub.at(0x4005)
    stub.stop(b"T05thread:01;watch:0000000000008000;")
    stops.take()
    assert (stops.take_outcome(), stops.hit) == (Outcome.WATCHPOINT, W)


@pytest.mark.parametrize("stored", [b"OK", b"E14"])
def test_a_fetch_that_faults_unseen_is_no_hit(stops, stub, stored):
    stub.exit, stub.stored = None, stored
    stub.stop()
    stops.take()
    assert stops.take_outcome() is None
    assert stub.sent[-2:] == [b"M4000,1:90" if stored == b"OK" else b"s", b"c"]


def test_an_intercepted_fault_of_the_fetch_does_as_well(stops, stub):
    stub.exit, stub.stored = 0x4E, b"E14"
    stub.stop()
    stops.take()
    assert stops.take_outcome() is Outcome.BREAKPOINT
    assert stub.sent[-3:] == [b"s", b"z0,4000,1", b"c"]


@pytest.mark.parametrize("reply", [b"T02thread:01;", None])
def test_a_pause_by_the_user_is_left_alone(stops, stub, reply):
    stub.stop(reply)
    stops.take()
    assert (stub.sent, stops.take_outcome()) == ([], None)


def test_a_stop_for_nothing_of_ours_goes_on(stops, stub):
    stub.at(0x5000)
    stub.stop()
    stops.take()
    assert (stub.sent, stops.take_outcome()) == (["info registers", b"c"], None)


def test_one_instruction_past_a_breakpoint_costs_one_stop_of_the_machine(stops, stub):
    both = frozenset((0x4000, 0x5000))
    stops.set_breakpoints(both)
    stops.apply()
    stub.stop()
    stops.take()  # at 0x4000, which goes
    stub.sent.clear()
    stub.save.rflags, stub.control.intercept_exceptions = RFLAGS.TF, DB
    stops.set_breakpoints(frozenset())
    stops.apply()
    assert stub.sent == []
    stub.save.rflags = 0
    stops.set_breakpoints(both)
    stops.apply()
    assert stub.sent == [b"\x03", b"Z0,4000,1", b"c"]


@pytest.mark.parametrize(("rflags", "intercepts"), [(0, DB), (RFLAGS.TF, 0)])
def test_breakpoints_that_are_unwanted_for_longer_are_removed(stops, stub, rflags, intercepts):
    stub.save.rflags, stub.control.intercept_exceptions = rflags, intercepts
    stops.set_breakpoints(frozenset())
    stops.apply()
    assert stub.sent == [b"\x03", b"z0,4000,1", b"c"]


def test_watchpoints_that_are_unwanted_are_always_removed(stops, stub):
    stub.save.rflags, stub.control.intercept_exceptions = RFLAGS.TF, DB
    stops.set_watchpoints(())
    stops.apply()
    assert stub.sent == [b"\x03", b"z2,8000,4", b"c"]


def test_an_unwanted_breakpoint_that_is_hit_is_removed_and_passed(stops, stub):
    stub.save.rflags, stub.control.intercept_exceptions = RFLAGS.TF, DB
    stops.set_breakpoints(frozenset())
    stops.apply()
    stub.stop()
    stops.take()
    assert (stub.sent, stops.take_outcome()) == (["info registers", b"z0,4000,1", b"c"], None)


def test_an_access_by_a_handler_of_an_smi_is_none_of_the_exit_before(stops, stub):
    stub.at(0x3_8000, efer=0, smm=1)
    stub.control.exit_code = DB_EXIT
    stub.stop(b"T05thread:01;watch:0000000000008000;")
    stops.take()
    assert (stops.take_outcome(), stops.take_pending()) == (None, False)


STATES_OF_OURS = ({"efer": 0}, {"smm": 1}, {"cr3": BASE + PML4_AT})


@pytest.mark.parametrize("number", range(3))
def test_the_firmware_and_the_monitor_are_passed(stops, stub, number):
    stub.at(0x4000, **STATES_OF_OURS[number])
    stub.stop()
    stops.take()
    assert (stub.sent, stops.take_outcome()) == (["info registers", b"s", b"c"], None)
    stub.stop(b"T05thread:01;watch:0000000000008000;")
    stops.take()
    assert (stub.sent, stops.take_outcome(), stops.take_pending()) == (["info registers", b"c"], None, False)


def test_an_access_of_an_instruction_that_traps_is_told_later(stops, stub):
    stub.at(0x80_0000_4320, cr3=BASE + PML4_AT)
    stub.control.exit_code = DB_EXIT
    for still_watched in (True, False):
        stub.stop(b"T05thread:01;watch:0000000000008000;")
        stops.take()
        assert stops.take_outcome() is None
        if not still_watched:
            stops.set_watchpoints(())
        assert stops.take_pending() is still_watched
        assert not stops.take_pending()
    assert stops.hit == W
