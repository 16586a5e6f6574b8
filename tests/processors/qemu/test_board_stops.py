import contextlib

import pytest

from tests.processors.qemu.scripted_qemu import FACTS
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import EFER
from trapline.arch.vmcb import IntCtl
from trapline.machine.processor import Outcome, Watchpoint
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.board_stops import BoardStops, united
from trapline.processors.qemu.cpu_stops import CpuStops
from trapline.processors.qemu.layout import PML4_AT, SharedMemory, base_for, size_for

DB_EXIT, GP_EXIT = 0x41, 0x4D
IDT_LIMIT = 0xFFF
PLACE, ELSEWHERE = 0x4000, 0x5000
W, R = Watchpoint(0x8000, 4, False), Watchpoint(0x8000, 8, True)
NAMED = b"T05thread:%02x;"
ACCESS = b"watch:0000000000008000;"
MONITOR = {"cr3": base_for(40) + PML4_AT}


class Cpu:
    """A CPU that executes 32-bit code at a linear address."""

    def __init__(self, number, memory):
        self.number = number
        self.stops = CpuStops(SharedMemory(memory, number), ScriptedMemory(0x1_0000), FACTS)
        self.control, self.save = self.stops.shared.vmcb.control, self.stops.shared.vmcb.save
        self.in_guest = True
        self.untold = b""
        """What QEMU is to say of an access with the next stop of this CPU."""
        self.leaves = [ExitCode.SWINT]
        """With which exits its steps end; None: it stays in the guest."""
        self.at(ELSEWHERE)

    def at(self, address, *, cr3=0, efer=EFER.SVME, smm=0, hlt=0):
        self.save.rip = address
        self.text = (
            f"EIP={address:08x} SMM={smm} HLT={hlt}\nCS =0008 00000000 ffffffff 00c09b00\nCR3={cr3:x}\nEFER={efer:x}\n"
        )


class Stub:
    """Plays QEMU's gdbstub, and its monitor."""

    def __init__(self, cpus):
        self.cpus, self.sent, self.replies = cpus, [], []
        self.halted = False
        """No step ends by itself."""

    def human_command(self, line):
        self.sent.append(line)

    def send(self, *payloads):
        for payload in payloads:
            self.sent.append(payload)
            if payload.startswith(b"vCont;s:"):
                self._step(self.cpus[int(payload[8:], 16) - 1])
            elif payload != b"c":
                self.replies.append({b"q": b"PacketSize=1000", b"m": b"90"}.get(payload[:1], b"OK"))

    def _step(self, cpu):
        code = cpu.leaves.pop(0) if len(cpu.leaves) > 1 else cpu.leaves[0]
        if code is not None:
            cpu.control.exit_code = code
        told, cpu.untold = cpu.untold, b""
        if not self.halted:
            self.replies.append(NAMED % (cpu.number + 1) + told)

    def receive(self):
        return self.replies.pop(0)

    def poll(self):
        return self.replies.pop(0) if self.replies else None

    def receive_within(self, seconds):
        return self.poll()

    def command(self, payload):
        self.send(payload)
        return self.receive()

    def interrupt(self):
        self.sent.append(b"\x03")
        return b"T02thread:01;"

    def monitor(self, line):
        self.sent.append(line)
        return "".join(f"\r\nCPU#{cpu.number}\r\n{cpu.text}" for cpu in self.cpus)


@pytest.fixture
def cpus():
    memory = memoryview(bytearray(size_for(2)))
    return [Cpu(number, memory) for number in range(2)]


@pytest.fixture
def stub(cpus):
    return Stub(cpus)


@pytest.fixture
def stops(cpus, stub):
    return BoardStops(stub, stub, cpus, contextlib.nullcontext)


@pytest.fixture
def hit(cpus, stub, stops):
    """Return a function that lets QEMU stop, and returns what that means for each CPU; None: it has not left."""

    def hit(reply, *, breakpoints=(PLACE,), watchpoints=()):
        for cpu in cpus:
            cpu.stops.breakpoints = frozenset(breakpoints)
            cpu.stops.watch(watchpoints)
        stops.apply(cpus)
        stub.sent.clear()
        stub.replies.append(reply)
        stops.take()
        assert stub.replies == []
        return [cpu.stops.outcome() or "nothing" if cpu.stops.take_forced() else None for cpu in cpus]

    return hit


def stepped(stub):
    return [int(packet[8:], 16) - 1 for packet in stub.sent if packet[:8] == b"vCont;s:"]


def test_qemu_has_what_stops_those_that_are_entered(cpus, stub, stops):
    stops.apply(cpus)
    assert stub.sent == []
    cpus[0].stops.breakpoints, cpus[1].stops.breakpoints = frozenset((1, 2)), frozenset((2, 3))
    stops.apply(cpus)
    assert stub.sent[2:] == [b"Z0,1,1", b"Z0,2,1", b"Z0,3,1", b"c"]
    stub.sent.clear()
    stops.apply(cpus)
    assert stub.sent == []
    stops.apply(cpus[1:])
    assert stub.sent == [b"\x03", "info registers -a", b"z0,1,1", b"c"]
    assert united([(frozenset(), (W, R)), (frozenset(), (R, W))]) == (frozenset(), (W, R))


@pytest.mark.parametrize("named", [1, 2])
def test_each_cpu_that_is_at_a_breakpoint_leaves(cpus, stub, hit, named):
    for cpu in cpus:
        cpu.at(PLACE)
    assert hit(NAMED % named) == [Outcome.BREAKPOINT] * 2
    assert stub.sent[:8] == [
        *("info registers -a", b"Hg1", b"m4000,1", b"M4000,1:cc", b"Hc1", b"vCont;s:1", b"M4000,1:90", b"Hg2")
    ]
    assert stub.sent[-1] == b"c"


def test_the_others_leave_as_well(cpus, stub, hit):
    cpus[1].at(PLACE)
    assert hit(NAMED % 2) == ["nothing", Outcome.BREAKPOINT]
    assert stepped(stub) == [0, 1]


def test_at_a_stop_for_nothing_they_stay_in_the_guest(stub, hit):
    assert hit(NAMED % 2) == [None, None]
    assert stub.sent == ["info registers -a", b"c"]


def test_a_stop_for_a_change_may_be_that_of_a_hit(cpus, stub, stops, hit):
    assert hit(NAMED % 1) == [None, None]
    cpus[0].at(PLACE)
    cpus[0].stops.breakpoints |= {ELSEWHERE}
    stops.apply(cpus)
    assert cpus[0].stops.take_forced()
    assert cpus[0].stops.outcome() is Outcome.BREAKPOINT


def test_an_access_is_told_with_the_next_stop_of_its_cpu(cpus, stub, hit):
    cpus[1].untold = b"a" + ACCESS
    assert hit(NAMED % 1 + ACCESS, breakpoints=(), watchpoints=(W, R)) == [Outcome.WATCHPOINT] * 2
    assert [cpu.stops.hit for cpu in cpus] == [W, R]
    assert stepped(stub) == [0, 1]


def test_a_cpu_that_has_accessed_nothing_goes_on(cpus, stub, hit):
    cpus[0].at(PLACE)
    assert hit(NAMED % 2 + ACCESS, watchpoints=(W,)) == [Outcome.BREAKPOINT, Outcome.WATCHPOINT]
    assert hit(NAMED % 2 + ACCESS, breakpoints=(), watchpoints=(W,)) == ["nothing", Outcome.WATCHPOINT]


def test_a_cpu_that_qemu_has_yet_to_stop_is_asked_again(cpus, stub, hit):
    cpus[1].leaves, cpus[1].untold = [None, ExitCode.SWINT], ACCESS
    assert hit(NAMED % 1 + ACCESS, breakpoints=(), watchpoints=(W,)) == [Outcome.WATCHPOINT] * 2
    assert stepped(stub) == [0, 1, 1]


def test_a_cpu_that_does_not_leave_is_not_waited_for(cpus, stub, hit):
    cpus[1].leaves = [None]
    cpus[1].at(PLACE)
    assert hit(NAMED % 2) == ["nothing", None]
    assert stepped(stub).count(1) > 1


@pytest.mark.parametrize("hlt", [0, 1])
def test_a_cpu_in_hlt_is_left_alone(cpus, stub, hit, hlt):
    cpus[1].at(PLACE, hlt=hlt)
    found = hit(NAMED % 1 + ACCESS, watchpoints=(W,))
    assert found == [Outcome.WATCHPOINT, None if hlt else Outcome.BREAKPOINT]


def test_a_step_into_hlt_ends_when_the_machine_is_stopped(cpus, stub, hit):
    stub.halted = True
    cpus[0].at(PLACE, efer=0)
    assert hit(NAMED % 1) == [None, None]
    assert stub.sent == ["info registers -a", b"Hc1", b"vCont;s:1", b"\x03", b"c"]


@pytest.mark.parametrize("state", [{"efer": 0}, {"smm": 1}, MONITOR])
def test_a_cpu_that_waits_elsewhere_is_left_alone(cpus, stub, hit, state):
    """After a reset the other CPUs wait for a startup IPI at the reset vector."""
    cpus[1].at(PLACE, hlt=1, **state)
    assert hit(NAMED % 1) == [None, None]
    assert stepped(stub) == []


@pytest.mark.parametrize("state", [{"efer": 0}, {"efer": 0, "smm": 1}, MONITOR])
def test_the_firmware_and_the_monitor_are_passed(cpus, stub, hit, state):
    cpus[1].at(PLACE, **state)
    assert hit(NAMED % 2) == [None, None]
    assert stepped(stub) == [1]


@pytest.mark.parametrize("in_guest", [True, False])
@pytest.mark.parametrize("named", [1, 2])
def test_an_access_of_an_instruction_that_traps_is_told_by_the_monitor(cpus, stub, hit, named, in_guest):
    """Whichever QEMU names. Of a CPU that the host has there is nothing to be told."""
    cpu = cpus[1]
    cpu.at(0x80_0000_4320, **MONITOR)
    cpu.in_guest, cpu.leaves, cpu.control.exit_code = in_guest, [None], DB_EXIT
    cpu.untold = ACCESS if named == 1 else b""
    first = Outcome.WATCHPOINT if named == 1 else "nothing"
    assert hit(NAMED % named + ACCESS, breakpoints=(), watchpoints=(W,)) == [first, None]
    told = named == 2 or in_guest
    assert cpu.stops.take_trap() == told
    assert cpu.stops.hit == (W if told else None)
    assert not cpu.stops.take_trap()


def test_an_access_by_a_handler_of_an_smi_is_none_of_the_exit_before(cpus, stub, hit):
    cpus[1].at(0x3_8000, efer=0, smm=1)
    cpus[1].control.exit_code = DB_EXIT
    assert hit(NAMED % 2 + ACCESS, breakpoints=(), watchpoints=(W,)) == ["nothing", None]
    assert not cpus[1].stops.take_trap()


@pytest.mark.parametrize("reply", [b"T02thread:01;", None])
def test_a_pause_by_the_user_is_left_alone(stub, hit, reply):
    assert hit(reply) == [None, None]
    assert stub.sent == []


def test_a_look_does_not_wait(stub, stops):
    stops.take()
    assert stub.sent == []


def test_a_stop_that_was_kept_may_be_none_any_more(cpus):
    stops, save = cpus[0].stops, cpus[0].save
    stops.breakpoints, save.rip = frozenset((PLACE,)), PLACE
    assert stops.is_wanted(Outcome.BREAKPOINT)
    save.rip += 1
    assert not stops.is_wanted(Outcome.BREAKPOINT)
    stops.watch((W,))
    stops.hit = W
    assert stops.is_wanted(Outcome.WATCHPOINT)
    stops.watch((R,))
    assert not stops.is_wanted(Outcome.WATCHPOINT)
    assert stops.is_wanted(Outcome.INIT)


def test_a_cpu_that_was_reset_has_hit_nothing(cpus):
    stops = cpus[0].stops
    stops.watch((W,))
    stops.note_forced((W.address, False), sure=True)
    cpus[0].control.exit_code = DB_EXIT
    stops.note_trap((W.address, False))
    stops.forget()
    assert (stops.take_forced(), stops.take_trap(), stops.hit) == (False, False, None)
    assert stops.places == (frozenset(), (W,))


@pytest.fixture
def interrupted(cpus):
    """A CPU that has left for an interrupt while there is a watchpoint."""
    cpu = cpus[0]
    cpu.stops.watch((W,))
    cpu.save.idtr.limit, cpu.control.exit_code = IDT_LIMIT, ExitCode.INTR
    assert cpu.stops.fetch_vector(wanted=False)
    assert cpu.save.idtr.limit == IDT_LIMIT  # it may be looked at
    return cpu


def test_the_vector_of_an_interrupt_is_fetched_with_the_next_entry(interrupted):
    stops, control = interrupted.stops, interrupted.control
    stops.before_entry()
    assert (interrupted.save.idtr.limit, is_intercepted(control, ExitCode.INTR)) == (0, False)
    stops.watch(())  # what is begun is done
    control.exit_code, control.exit_int_info = GP_EXIT, encode(Event(0x40, EventType.INTR))
    assert stops.fetch_vector(wanted=False)
    assert interrupted.save.idtr.limit == IDT_LIMIT
    assert control.event_inj == encode(Event(0x40, EventType.INTR))


def test_an_interrupt_waits_for_a_cpu_that_is_made_to_leave_meanwhile(interrupted):
    stops, control = interrupted.stops, interrupted.control
    stops.before_entry()
    control.exit_code = ExitCode.SWINT
    stops.note_forced(None, sure=False)
    assert stops.take_forced()
    assert (interrupted.save.idtr.limit, is_intercepted(control, ExitCode.INTR)) == (IDT_LIMIT, True)
    stops.before_entry()
    assert interrupted.save.idtr.limit == IDT_LIMIT


@pytest.mark.parametrize("change", ["watched", "stepped"])
def test_an_interrupt_that_is_to_wait_otherwise(interrupted, change):
    if change == "watched":
        interrupted.stops.watch(())
    else:
        interrupted.control.int_ctl = IntCtl.V_INTR_MASKING
    interrupted.stops.before_entry()
    assert interrupted.save.idtr.limit == IDT_LIMIT


def test_an_interrupt_that_the_hypervisor_wants_is_its_own(cpus):
    cpus[0].stops.watch((W,))
    cpus[0].control.exit_code = ExitCode.INTR
    assert not cpus[0].stops.fetch_vector(wanted=True)
