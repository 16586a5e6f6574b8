"""A run of which only some exceptions are recorded, or that ends at one, on each processor."""

import json

import pytest

from tests.session.test_machine import PROCESSORS
from trapline.api import STOP, Machine, run
from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.hypervisor.stop import StopReason
from trapline.machine.processor import Outcome
from trapline.machine.scripted import MANUAL, ScriptedProcessor
from trapline.report.fold import PLAIN
from trapline.report.result import Ending
from trapline.report.text import costs, report


@pytest.fixture(params=PROCESSORS)
def ran(request):
    """Return a function that runs a sample on one of the processors."""
    return lambda sample, **options: run(
        f"sample:{sample}", processor=request.param, exceptions="all", timeout=60, **options
    )


@pytest.mark.parametrize(
    ("where", "vectors"),
    [
        ("cpl == 3 and vector == gp", [Vector.GP]),
        ("address == 0x101000 or vector == ud", [Vector.PF]),
        ("cpl == 3 and seq == 0", [Vector.PF]),
    ],
)
def test_only_what_the_condition_holds_for_is_recorded(ran, where, vectors):
    said = []
    done = ran("ring3", where=where, live=said.append)
    assert [exc.vector for exc in done.exceptions if exc.cpl == 3] == vectors
    assert done.recorded == len(said) == len(done.exceptions)
    assert b"#PF(0x5) for 0x101000" in done.console  # the guest gets them all
    assert b"#GP(0x0)" in done.console
    assert done.to_json()["where"] == where


def test_many_are_left_out(ran):
    done = ran("ud-loop", where="vector == ud and seq < 5")
    assert done.recorded == 5
    assert b"20,000" in done.console or b"20000" in done.console


def test_a_shutdown_is_explained_from_exceptions_that_are_not_recorded(ran, tmp_path):
    path = tmp_path / "records"
    done = ran("no-idt", where="cpl == 3", output=path)
    assert done.recorded == 0
    assert "no IDT is loaded" in done.explanation.cause
    assert "  none was recorded where cpl == 3" in report(done)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines
    assert all("seq" not in line or line["seq"] is None for line in lines)


def test_rules_see_what_is_not_recorded(ran):
    done = ran("ring3", where="vector == gp", expect=["user:pf=1"], fail_on=["ud"])
    assert (done.exit_code, done.violations) == (0, ())


def test_the_costs_name_the_condition():
    done = run("sample:ud", exceptions="all", where=" vector == ud\n and cpl == 0 ")
    assert costs(done, PLAIN)[0].startswith("1 exception recorded where vector == ud and cpl == 0; ")


def test_a_bad_condition_is_refused_before_the_machine_is_on(tmp_path):
    path = tmp_path / "records"
    with pytest.raises(UsageError, match="there is no column colour"):
        run("sample:ud", where="colour == 3", output=path)
    assert not path.exists()


# ---- stops


@pytest.mark.parametrize(
    ("stop", "hit", "recorded"),
    [
        (["gp"], "stop gp: #GP(0x0) at ", 1),
        (["pf if cpl == 0", "gp if cpl == 3"], "stop gp if cpl == 3: #GP(0x0) at ", 1),
        (["if cpl == 3 and address == 0x101000"], "stop if cpl == 3 and address == 0x101000: #PF(0x5) at ", 0),
        (["all,!pf", "gp"], "stop all,!pf: #GP(0x0) at ", 1),
    ],
)
def test_the_first_exception_that_is_asked_for_ends_the_run(ran, stop, hit, recorded):
    done = ran("ring3", stop=stop)
    assert (done.ending, done.exit_code) == (Ending.EXCEPTION, 0)
    assert done.detail.startswith(hit)
    assert [exc.vector for exc in done.exceptions if exc.cpl == 3] == [Vector.PF] * recorded
    assert done.crash.registers.cpl == 3
    assert done.crash.code
    assert done.explanation.origin.event.vector == (Vector.GP if recorded else Vector.PF)
    assert b"#GP" not in done.console.partition(b"\n")[2]  # it is not delivered


@pytest.mark.parametrize("why", [{"stop": ["df"]}, {"fail_on": ["df"]}])
def test_a_double_fault_is_explained_by_what_led_to_it(ran, why):
    done = ran("gate-not-present", **why)
    assert [exc.vector for exc in done.exceptions] == [Vector.UD, Vector.NP, Vector.NP]
    assert done.explanation.origin.event.vector == Vector.UD
    assert done.explanation.cause.startswith("IDT entry 6 (#UD) is not present")


@pytest.mark.parametrize("rules", ["gp", ["gp"]])
def test_one_rule_may_be_given_as_it_is(rules):
    done = run("sample:gp", exceptions="all", timeout=60, fail_on=rules, expect=rules, keep_going=True)
    assert [violation.rule for violation in done.violations] == ["gp"]
    assert run("sample:gp", exceptions="all", timeout=60, stop=rules).ending is Ending.EXCEPTION


def test_one_symbol_file_may_be_given_as_it_is(tmp_path):
    symbols = tmp_path / "System.map"
    symbols.write_text("0000000000001000 T kmain\n")
    with Machine("sample:gp", symbols=str(symbols)) as m:
        assert m.resolve("kmain") == 0x1000


def test_a_stop_that_is_not_reached(ran):
    done = ran("ring3", stop=["gp if cpl == 0"])
    assert (done.ending, done.exit_code) == (Ending.DEBUG_EXIT, 0)
    assert b"done" in done.console
    assert done.unreached == ("gp if cpl == 0",)
    assert "stop gp if cpl == 0: not raised" in report(done)


def test_where_one_stop_is_reached_the_others_need_not_be(ran):
    assert ran("ring3", stop=["gp if cpl == 0", "gp"]).unreached == ()


def test_a_stop_at_an_exception_that_is_not_recorded(ran):
    done = ran("ring3", stop=["gp"], where="vector == ud")
    assert (done.ending, done.recorded) == (Ending.EXCEPTION, 0)


@pytest.mark.parametrize(
    ("rules", "ending", "code", "violated"),
    [
        ({"fail_on": ["gp"]}, Ending.RULE, 5, ["gp"]),
        ({"fail_on": ["ud"]}, Ending.EXCEPTION, 0, []),
        ({"fail_on": ["user:pf"], "keep_going": True}, Ending.EXCEPTION, 5, ["user:pf"]),
        ({"expect": ["gp=1"]}, Ending.EXCEPTION, 0, []),
        ({"expect": ["gp=2"]}, Ending.EXCEPTION, 5, ["gp=2"]),
    ],
)
def test_a_stop_and_rules(rules, ending, code, violated):
    done = run("sample:ring3", exceptions="all", stop=["gp"], timeout=60, **rules)
    assert (done.ending, done.exit_code) == (ending, code)
    assert [violation.rule for violation in done.violations] == violated


def test_a_stop_at_a_double_fault_that_two_exceptions_combine_to(ran):
    done = ran("double-fault", stop=["df"])
    assert done.ending is Ending.EXCEPTION
    assert done.detail.startswith("stop df: #DF(0x0) at ")


@pytest.mark.parametrize("stop", ["ts", "ts,gp"])
def test_an_exception_that_the_processor_does_not_force(stop):
    lacking = MANUAL._replace(ts_error_code=False)
    with pytest.raises(UsageError, match=f"--stop {stop}: scripted gives no error code for #TS, so it is not forced"):
        run(processor=ScriptedProcessor([Outcome.RESET], capabilities=lacking), exceptions="all", stop=[stop])


def test_a_callback_that_stops_the_guest_ends_it_alike():
    with Machine("sample:ring3", exceptions="all") as m:
        m.on(Vector.GP)(lambda exc: STOP)
        assert m.run(timeout=60).reason is StopReason.EXCEPTION
        done = m.result()
    assert (done.ending, done.detail) == (Ending.EXCEPTION, "#GP(0x0)")
    assert done.crash.registers.cpl == 3


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"fail_on": ["kernel:pf"]}, "--fail-on kernel:pf: #PF is not forced; add pf to --exceptions"),
        ({"fail_on": ["ud", "gp"]}, "--fail-on gp: #GP is not forced; add gp to --exceptions"),
        ({"expect": ["pf=0"]}, "--expect pf=0: #PF is not forced; add pf to --exceptions"),
    ],
)
def test_a_rule_about_what_is_not_forced_would_never_be_noticed(rules, words):
    with pytest.raises(UsageError) as caught:
        run("sample:ud", exceptions="ud", timeout=60, **rules)
    assert str(caught.value) == words


def test_records_have_the_registers_on_both_processors():
    ran = [run("sample:ring3", processor=processor) for processor in ("unicorn", "qemu")]
    one, two = ([record.registers._replace(rbx=0, rdi=0) for record in done.exceptions] for done in ran)
    assert one == two  # but for RBX and RDI, which are the loader's
    assert len({value for registers in one for value in registers}) == 4
