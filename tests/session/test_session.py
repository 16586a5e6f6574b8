import pytest

from tests.lines import names
from trapline.api import run as run_guest
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.errors import LaunchError, ProcessorError, ProcessorLost, UsageError
from trapline.machine.processor import Outcome, Statistics
from trapline.machine.scripted import ScriptedProcessor, vmexit
from trapline.report.result import Ending
from trapline.session.session import Session

UD = vmexit(0x40 + Vector.UD)
SHUTDOWN = vmexit(0x7F)


def interrupted(processor):
    raise KeyboardInterrupt


def overdue(processor):
    return Outcome.DEADLINE


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs a session on a script."""

    def run(*steps, exceptions=FORCEABLE, exit_status=None, switched_on=True, **options):
        processor = ScriptedProcessor([Outcome.RESET, *steps] if switched_on else steps)
        processor.exit_status = exit_status
        processor.statistics = Statistics(exits=5, stopped=0.25)
        run.processor = processor
        return run_guest(processor=processor, exceptions=exceptions, **options)

    return run


@pytest.mark.parametrize(
    ("steps", "exit_status", "ending"),
    [
        ([Outcome.OFF], None, Ending.OFF),
        ([Outcome.OFF], 1, Ending.DEBUG_EXIT),
        ([Outcome.RESET], None, Ending.RESET),
        ([SHUTDOWN], None, Ending.SHUTDOWN),
        ([overdue], None, Ending.TIMEOUT),
        ([interrupted], None, Ending.INTERRUPTED),
        ([ProcessorLost("gone")], None, Ending.FAILED),
        ([ProcessorError("broken")], None, Ending.FAILED),
        ([vmexit(0x8E)], None, Ending.FAILED),
    ],
)
def test_endings(run, steps, exit_status, ending):
    result = run(UD, *steps, exit_status=exit_status)
    assert result.ending is ending
    assert result.recorded == 1
    assert [(row.vector, row.times) for row in result.counts] == [(Vector.UD, 1)]
    assert (result.exits, result.stopped_seconds) == (5, 0.25)
    assert result.seconds > 0
    assert (result.crash is not None) == (ending in (Ending.SHUTDOWN, Ending.TIMEOUT, Ending.INTERRUPTED))
    assert run.processor.commands[-1] == "close"


def test_an_error_of_a_running_guest_is_part_of_the_result(run):
    error = ProcessorLost("gone")
    result = run(UD, error)
    assert result.error is error
    assert result.detail == "gone"


def test_an_unexpected_exit_shows_the_vmcb(run):
    result = run(vmexit(0x8E))
    assert result.error is None
    assert "0x8e" in result.detail


def test_an_error_before_the_guest_runs_is_raised(run):
    with pytest.raises(LaunchError):
        run(LaunchError("QEMU did not start"), switched_on=False)
    assert run.processor.commands[-1] == "close"
    with pytest.raises(UsageError, match="cannot be forced"):
        run(exceptions=1 << Vector.NMI)
    assert run.processor.commands[-1] == "close"


def test_a_processor_that_is_lost_at_once_is_a_result(run):
    assert run(ProcessorLost("gone"), switched_on=False).ending is Ending.FAILED


def test_an_interrupt_while_qemu_starts_is_a_result(run):
    assert run(interrupted, switched_on=False).ending is Ending.INTERRUPTED


def test_the_state_at_a_shutdown_is_that_before_the_reset(run):
    def at_the_end(processor):
        save = processor.vmcb.save
        save.cs.selector, save.rip, save.rsp, save.cpl = 8, 0x1234, 0x8000, 3
        save.cr2, save.cr3, save.idtr.base, save.idtr.limit = 0xDEAD, 0x1000, 0x500, 0xFFF
        processor.vmcb.control.exit_code = 0x7F
        processor.vmcb.control.exit_int_info = 0x80000B08

    registers = run(UD, at_the_end).crash.registers
    assert (registers.cs.selector, registers.rip, registers.rsp, registers.cpl) == (8, 0x1234, 0x8000, 3)
    assert (registers.cr2, registers.cr3, registers.idtr.base, registers.idtr.limit) == (0xDEAD, 0x1000, 0x500, 0xFFF)


def test_reboots_play_a_shutdown_as_the_hardware_does(run):
    result = run(SHUTDOWN, Outcome.RESET, UD, reboot=True)
    assert result.ending is Ending.OFF
    assert run.processor.commands == ["shutdown", "close"]


def test_the_last_exceptions_are_kept_newest_last(run):
    def numbered(processor):
        processor.vmcb.control.exit_code = 0x40 + Vector.UD
        processor.vmcb.save.rip = len(processor.entries)

    result = run(*[numbered] * 70, SHUTDOWN)
    rips = [record.rip for record in result.exceptions]
    assert rips == list(range(rips[0], rips[0] + 70))
    assert [record.rip for record in result.last()] == rips[-64:]
    assert [record["seq"] for record in result.to_json()["last"]] == list(range(6, 70))


def test_of_very_many_exceptions_the_newest_are_kept(run):
    result = run(*[UD] * 70, keep=65)
    assert (result.recorded, len(result.exceptions), result.exceptions[0].seq) == (70, 65, 5)


def test_the_deadline_is_as_far_away_as_was_asked_for(run):
    run(timeout=5)
    assert run.processor.entries[0].deadline is not None
    run()
    assert run.processor.entries[0].deadline is None


def test_records_of_the_processor_and_of_the_hypervisor_are_one_row(run, tmp_path):
    from trapline.machine.record import Record

    def by_itself(processor):
        record = Record()
        record.vector = Vector.PF
        processor.sink(memoryview(bytes(record)))
        return UD(processor)

    path = tmp_path / "records.jsonl"
    said = []
    result = run(by_itself, output=path, live=said.append)
    assert names(path.read_text()) == ["#PF", "#UD"]
    assert [line.split()[0] for line in said] == ["#PF", "#UD"]
    assert result.recorded == 2


def test_a_guest_that_cannot_be_stopped_after_its_time_is_said_so(run, monkeypatch):
    def stuck(session):
        raise ProcessorError("it takes no NMI")

    monkeypatch.setattr(Session, "halt", stuck)
    result = run(overdue)
    assert (result.ending, result.crash) == (Ending.TIMEOUT, None)
    assert "could not be stopped" in result.findings[0]
