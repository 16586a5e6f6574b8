"""A machine as a user of the library holds it."""

import asyncio
import shutil
import threading

import pytest

from trapline import (
    DISCARD,
    STOP,
    Ending,
    FaultError,
    Machine,
    MonitorDamaged,
    ProcessorError,
    ProcessorLost,
    ScriptedProcessor,
    StopReason,
    UsageError,
    Vector,
    inject,
)
from trapline.arch.events import Event, EventType
from trapline.machine.processor import Outcome
from trapline.machine.scripted import vmexit

UD, PF = vmexit(0x46), vmexit(0x4E, info_1=2, info_2=0x1234)
PROCESSORS = [
    "unicorn",
    pytest.param(
        "qemu",
        marks=[
            pytest.mark.qemu,
            pytest.mark.slow,
            pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
        ],
    ),
]
LOOP = bytes.fromhex("31c0 ffc0 ebfc")
"""xor eax, eax; again: inc eax; jmp again"""
ECHO = bytes.fromhex("bafd03 ec a801 74fb baf803 ec ee 3c71 75ef fa f4")
"""wait: mov dx, 3fdh; in al, dx; test al, 1; jz wait; mov dx, 3f8h; in al, dx; out dx, al; cmp al, 'q'; jne wait;
cli; hlt
"""


@pytest.fixture
def scripted():
    """Return a function that makes a machine of a script."""

    def scripted(*steps):
        return Machine(processor=ScriptedProcessor([Outcome.RESET, *steps]), exceptions="all")

    return scripted


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("last", [Outcome.LEAVING, vmexit(0x7F)], ids=["a reset", "a triple fault"])
def test_a_guest_that_ends_as_its_time_is_up(monkeypatch, reboot, last):
    """It does so instead of being stopped: this is as at any other time."""
    processor = ScriptedProcessor([Outcome.RESET, Outcome.DEADLINE, last, Outcome.RESET, Outcome.OFF])
    monkeypatch.setattr(processor, "kick", lambda: None)  # it comes too late
    with Machine(processor=processor, reboot=reboot) as m:
        stop = m.run(timeout=1)
        reason = StopReason.RESET if last is Outcome.LEAVING else StopReason.SHUTDOWN
        assert stop.reason is (StopReason.OFF if reboot else reason)
        assert (stop.explain() is not None) == (stop.reason is StopReason.SHUTDOWN)


def test_a_callback_sees_the_exceptions_of_its_condition(scripted):
    seen = []
    with scripted(UD, PF, UD) as m:

        @m.on(Vector.PF, Vector.UD, where="address == 0x1234 or seq > 1")
        def note(exc):
            seen.append((exc.vector, exc.error_code, exc.address, exc.seq))

        assert m.run().reason is StopReason.OFF
    assert seen == [(Vector.PF, 2, 0x1234, 1), (Vector.UD, None, None, 2)]


def test_a_callback_that_is_off_is_not_called(scripted):
    seen = []
    with scripted(UD, UD) as m:

        @m.on()
        def once(exc):
            seen.append(exc.vector)
            m.off(once)

        m.run()
        with pytest.raises(KeyError):
            m.off(once)
    assert seen == [Vector.UD]


def test_what_a_callback_raises_comes_out_of_run_and_the_guest_can_go_on(scripted):
    with scripted(UD) as m:

        @m.on(Vector.UD)
        def fail(exc):
            raise LookupError("no idea")

        with pytest.raises(LookupError, match="no idea"):
            m.run()
        m.off(fail)
        assert len(m.exceptions) == 0  # it is not delivered yet
        assert m.run().reason is StopReason.OFF
        assert len(m.exceptions) == 1


@pytest.mark.parametrize("answer", [True, "forward", 3])
def test_an_answer_that_is_not_a_decision(scripted, answer):
    with scripted(UD) as m:
        m.on(Vector.UD)(lambda exc: answer)
        with pytest.raises(UsageError, match=f"returned .*: {answer!r} is not FORWARD, DISCARD, STOP or inject"):
            m.run()


def test_a_stop_can_be_decided_after_all(scripted):
    with scripted(UD) as m:
        m.on(Vector.UD)(lambda exc: STOP)
        stop = m.run()
        assert (stop.reason, stop.exception.vector) == (StopReason.EXCEPTION, Vector.UD)
        assert stop.explain().origin.event.vector == Vector.UD
        m.cpus[0].registers.rax = 0x77
        stop.deliver(inject(Vector.PF, 2, address=0xCAFE))
        assert m.run().reason is StopReason.OFF
        assert m.session.processor.entries[-1].vmcb.save.rax == 0x77
        assert [str(record.injected) for record in m.exceptions] == ["#PF(0x2)"]


def test_discard_goes_on_where_the_callback_says(scripted):
    with scripted(UD) as m:

        @m.on(Vector.UD)
        def skip(exc):
            exc.rip += 2
            return DISCARD

        m.run()
        entry = m.session.processor.entries[-1]
        assert (entry.event, entry.vmcb.save.rip) == (None, 0xFFF2)


def test_what_is_discarded_is_recorded_where_it_was_raised(scripted):
    with scripted(UD, UD) as m:

        @m.on(Vector.UD)
        def skip(exc):
            exc.rip += 2
            if exc.seq == 0:
                return DISCARD
            exc.registers.rflags |= 1
            return STOP

        stop = m.run()
        m.cpus[0].registers.rsp = 0x8000
        stop.deliver(DISCARD)
        m.run()
        assert [(exc.rip, exc.rsp, exc.rflags & 1) for exc in m.exceptions] == [(0xFFF0, 0, 0), (0xFFF2, 0, 0)]
        after = m.session.processor.entries[-1].vmcb.save
        assert (after.rip, after.rsp, after.rflags & 1) == (0xFFF4, 0x8000, 1)


def test_what_is_discarded_after_a_stop_leaves_the_delivery_that_it_broke(scripted):
    vectoring = Event(Vector.DE, EventType.EXCEPTION)
    with scripted(vmexit(0x46, vectoring=vectoring)) as m:
        m.on(Vector.UD)(lambda exc: STOP)
        m.run().deliver(DISCARD)
        m.run()
        assert m.session.processor.entries[-1].event == vectoring


@pytest.mark.parametrize("decision", [None, "forward", True])
def test_what_cannot_be_delivered(scripted, decision):
    with scripted(UD) as m:
        m.on(Vector.UD)(lambda exc: STOP)
        with pytest.raises(UsageError, match="is not FORWARD, DISCARD, STOP or inject"):
            m.run().deliver(decision)


@pytest.mark.parametrize("vectors", [(99,), (-1,), ("pf",), (lambda exc: None,), (Vector.PF, 2)])
def test_a_callback_for_what_is_not_intercepted_ever(scripted, vectors):
    with scripted() as m, pytest.raises(UsageError):
        m.on(*vectors)


def test_registers_have_no_other_names(scripted):
    with scripted() as m, pytest.raises(AttributeError):
        m.cpus[0].registers.rxx = 1


def test_memory_has_no_negative_size(scripted):
    with scripted() as m:
        for read in (m.memory.read, m.cpus[0].read):
            with pytest.raises(UsageError, match="-1 bytes"):
                read(0x1000, -1)


@pytest.mark.parametrize("place", [-1, 1 << 64, 1.5, None])
def test_a_place_that_is_not_an_address(scripted, place):
    with scripted() as m, pytest.raises(UsageError):
        m.breakpoints.add(place)


def test_after_the_end_nothing_runs_and_nothing_can_be_read(scripted):
    with scripted() as m:
        m.run()
        with pytest.raises(UsageError, match="cannot run any more"):
            m.run()
        with pytest.raises(UsageError, match="cannot be accessed any more"):
            m.cpus[0].registers.rip  # noqa: B018  # to read it is the point


def test_a_machine_that_is_closed():
    with Machine("sample:ud") as m:
        pass
    m.close()
    for call in (m.run, m.step, lambda: m.cpus[0].registers.rip, lambda: m.memory.read(0, 1)):
        with pytest.raises(UsageError, match="the machine is closed"):
            call()


def test_an_exit_that_nobody_handles_is_an_error(scripted):
    with scripted(vmexit(0x8E)) as m, pytest.raises(ProcessorError, match="0x8e"):
        m.run()


@pytest.mark.parametrize(
    "error", [ProcessorLost("it is gone"), MonitorDamaged("it is gone", isolated=False, q35=False)]
)
def test_a_processor_that_fails_is_the_end(scripted, error):
    def fails(_):
        raise error

    with scripted(UD, fails) as m:
        with pytest.raises(type(error), match="it is gone"):
            m.run()
        with pytest.raises(UsageError, match=r"cannot run any more: .*it is gone"):
            m.run()
        result = m.result()
        assert (result.ending, result.exit_code, result.error, result.recorded) == (Ending.FAILED, 1, error, 1)


@pytest.mark.parametrize("wrong", [{"guest": "x"}, {"memory": "1M"}, {"qemu_options": ["-cpu", "max"]}])
def test_a_processor_of_ones_own_brings_its_guest(wrong):
    with pytest.raises(UsageError, match="cannot be given with your own processor"):
        Machine(processor=ScriptedProcessor([]), **wrong)


def test_a_keyword_that_there_is_not():
    with pytest.raises(TypeError, match="colour"):
        Machine("sample:ud", colour="red")


@pytest.mark.parametrize("where", ["cpl = 0", "color == 1", "__import__('os')", ""])
def test_a_condition_that_is_none(scripted, where):
    with scripted() as m, pytest.raises(UsageError):
        m.on(Vector.UD, where=where)


def test_code_as_bytes_needs_its_mode():
    with pytest.raises(UsageError, match="entry_mode"):
        Machine(LOOP)


def test_another_thread_chips_and_none_but_the_runner_reads():
    with Machine(LOOP, entry_mode=64, exceptions="none") as m:
        m.interrupt()
        assert m.run(timeout=30).reason is StopReason.INTERRUPTED  # it was asked before
        refused = []

        def look():
            try:
                m.cpus[0].registers.rip  # noqa: B018  # to read it is the point
            except UsageError as error:
                refused.append(str(error))
            m.interrupt()

        timer = threading.Timer(0.2, look)
        timer.start()
        assert m.run(timeout=30).reason is StopReason.INTERRUPTED
        timer.join()
        assert "while it is stopped" in refused[0]
        assert m.cpus[0].registers.rax > 0


def test_two_machines_in_two_threads():
    found = {}

    def count(name):
        with Machine(f"sample:{name}", exceptions="all") as m:
            m.run(timeout=60)
            found[name] = [record.vector for record in m.exceptions]

    threads = [threading.Thread(target=count, args=(name,)) for name in ("ud", "gp")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"ud": [Vector.UD], "gp": [Vector.GP]}


def test_under_asyncio():
    async def main():
        with Machine("sample:ud", exceptions="all") as m:
            return (await asyncio.to_thread(m.run, 60)).reason

    assert asyncio.run(main()) is StopReason.OFF


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_a_kick_in_a_thread_that_runs_an_event_loop(in_main_thread):
    """QEMU is kicked by QMP, whose library has an event loop of its own. This guest is a BIOS with nothing to boot."""
    reasons = []

    async def main():
        with Machine(exceptions="none", qemu_options=["-nodefaults"]) as m:
            timer = threading.Timer(0.5, m.interrupt)
            timer.start()
            reasons.append(m.run(timeout=60).reason)
            timer.join()

    if in_main_thread:
        asyncio.run(main())
    else:
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        thread.join()
    assert reasons == [StopReason.INTERRUPTED]


def test_a_guest_that_ends_as_its_time_is_up_has_ended():
    class Late(ScriptedProcessor):
        def kick(self):
            """Come too late."""

    with Machine(processor=Late([Outcome.RESET, Outcome.DEADLINE, Outcome.OFF])) as m:
        assert m.run(timeout=1).reason is StopReason.OFF
        with pytest.raises(UsageError, match="cannot run any more"):
            m.run()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_when_the_time_is_up_the_guest_is_stopped_and_can_go_on(processor):
    with Machine("sample:ud", exceptions="all", processor=processor) as m:
        m.on(Vector.UD)(lambda exc: STOP)
        m.run(timeout=60)
        registers = m.cpus[0].registers
        m.cpus[0].write(0x18_0000, LOOP)
        m.session.vm.decide(DISCARD)
        registers.rip = 0x18_0000
        for _ in range(2):
            before = registers.rax
            assert m.run(timeout=0.2).reason is StopReason.TIMEOUT
            assert 0x18_0000 <= registers.rip < 0x18_0006
            assert registers.rax != before


@pytest.mark.parametrize("processor", PROCESSORS)
def test_memory_is_read_and_written_by_both_addresses(processor):
    with Machine("sample:ud", exceptions="all", processor=processor) as m:
        m.on(Vector.UD)(lambda exc: STOP)
        m.run(timeout=60)
        cpu = m.cpus[0]
        cpu.write(0x18_0FFE, b"spam")  # over the end of a page
        assert (cpu.read(0x18_0FFE, 4), m.memory.read(0x18_0FFE, 4)) == (b"spam", b"spam")
        m.memory.write(0x18_0FFE, b"eggs")
        assert cpu.read(0x18_0FFE, 4) == b"eggs"
        with pytest.raises(FaultError) as error:
            cpu.read(1 << 40, 8)
        assert error.value.address == 1 << 40
        with pytest.raises(FaultError):
            m.memory.read(1 << 39, 8)
        assert [line.text for line in cpu.disassemble(1)] == ["ud2"]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_stops_at_a_breakpoint_a_watchpoint_and_after_each_step(processor):
    with Machine("sample:pf", exceptions="all", processor=processor) as m:
        m.on(Vector.PF)(lambda exc: STOP)
        m.run(timeout=60)
        assert m.step(timeout=60).reason is StopReason.STEP  # delivered: the handler's first instruction
        cpu = m.cpus[0]
        handler, rsp = cpu.registers.rip, cpu.registers.rsp
        assert cpu.disassemble(1)[0].text == "push 0xe"
        assert m.breakpoints.add(handler + 2) == handler + 2
        assert m.step().reason is StopReason.STEP
        m.breakpoints.clear()
        watched = m.watchpoints.add(rsp - 24, 8)
        stop = m.run(timeout=60)
        assert (stop.reason, stop.watchpoint) == (StopReason.WATCHPOINT, watched)
        m.watchpoints.remove(watched)
        second = m.run(timeout=60)
        assert (second.reason, second.exception.rip) == (StopReason.EXCEPTION, second.exception.registers.rip)
        m.breakpoints.add(handler)
        assert m.run(timeout=60).reason is StopReason.BREAKPOINT
        assert cpu.registers.rip == handler
        m.breakpoints.remove(handler)
        assert m.run(timeout=60).reason is StopReason.OFF
        assert m.result().exit_value == 0


def test_breakpoints_by_name(tmp_path):
    symbols = tmp_path / "System.map"
    functions = "0000000000001000 T kmain\n0000000000001100 T panic\n0000000000001200 T after\n"
    symbols.write_text(f"{functions}0000000000002000 B ticks\n")
    with Machine(processor=ScriptedProcessor([Outcome.RESET]), symbols=[str(symbols)]) as m:
        assert (m.resolve("kmain"), m.resolve("panic+0x10"), m.resolve(5)) == (0x1000, 0x1110, 5)
        assert str(m.lookup(0x1101)) == "panic+0x1"
        for wrong in ("main", "kmain+x"):
            with pytest.raises(UsageError):
                m.breakpoints.add(wrong)
        with pytest.raises(KeyError):
            m.breakpoints.remove("kmain")
        m.breakpoints.add("kmain")
        assert (list(m.breakpoints), len(m.breakpoints), "kmain" in m.breakpoints) == ([0x1000], 1, True)
        assert m.watchpoints.add("ticks+4", 4).address == 0x2004


def test_a_breakpoint_by_name_is_where_the_guest_has_the_function(tmp_path):
    symbols = tmp_path / "System.map"
    symbols.write_text("0000000000001000 T kmain\n0000000000001100 T panic\n")
    with Machine(processor=ScriptedProcessor([Outcome.RESET]), symbols=[f"{symbols}@0x20000"]) as m:
        assert m.breakpoints.add("panic+4") == 0x21104


@pytest.mark.parametrize(("size", "access"), [(0, "w"), (-1, "w"), (8, "r"), (8, "x")])
def test_what_cannot_be_watched(scripted, size, access):
    with scripted() as m, pytest.raises(UsageError):
        m.watchpoints.add(0x1000, size, access)


def test_a_dialogue_in_this_process():
    with Machine(ECHO, entry_mode=16, exceptions="all") as m:
        m.console.write(b"hello ")
        assert m.console.read_until(b"lo ", timeout=60) == b"hello "
        m.console.write(b"world q")
        assert m.console.read_until(b"ld ", timeout=60) == b"world "
        assert m.run(timeout=60).reason is StopReason.HALTED
        assert m.console.output == b"hello world q"


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_a_dialogue_under_qemu(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(ECHO.ljust(510, b"\0") + b"\x55\xaa")
    with Machine(disk, exceptions="none") as m:
        m.console.write(b"a")
        m.console.read_until(b"a", timeout=60)
        m.console.write(b"b c")
        assert m.console.read_until(b"c", timeout=60).endswith(b"b c")
