import re
from dataclasses import replace

import pytest

from trapline.api import Machine, run
from trapline.arch.vectors import Vector
from trapline.errors import GuestFailed, ProcessorLost, UsageError
from trapline.machine.processor import Outcome
from trapline.machine.scripted import ScriptedProcessor, vmexit
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions

UD, PF, SHUTDOWN = vmexit(0x46), vmexit(0x4E, info_1=2, info_2=0x1234), vmexit(0x7F)


def at(step, rip, cpl=0):
    def raised(processor):
        processor.vmcb.save.rip, processor.vmcb.save.cpl = rip, cpl
        return step(processor)

    return raised


def overdue(processor):
    return Outcome.DEADLINE


def named(address):
    return Symbol("copy_user_fast" if address & 0xF000 == 0x2000 else "main", address & 0xF)


@pytest.fixture
def ran():
    """Return a function that runs a script."""

    def ran(*steps, exit_status=None, **options):
        processor = ScriptedProcessor([Outcome.RESET, *steps])
        processor.exit_status = exit_status
        return run(processor=processor, **{"exceptions": "all", **options})

    return ran


@pytest.fixture
def mixed(ran):
    """Three page faults, two of them of the user's, and a #UD; instructions have names."""
    found = ran(at(PF, 0x2010), at(PF, 0x2011, cpl=3), at(UD, 0x1000), at(PF, 0x2012, cpl=3))
    data = b"".join(bytes(record) for record in found.exceptions.columns)
    return replace(found, exceptions=Exceptions(data, lookup=named))


# ---- check


@pytest.mark.parametrize(("steps", "exit_status"), [([Outcome.OFF], None), ([Outcome.OFF], 1), ([Outcome.RESET], None)])
def test_a_guest_that_ended_well(ran, steps, exit_status):
    assert ran(UD, *steps, exit_status=exit_status).check() is None


@pytest.mark.parametrize(
    ("steps", "exit_status", "options", "first"),
    [
        ([Outcome.OFF], 3, {}, "debug exit with 0x1"),
        ([SHUTDOWN], None, {}, r"shutdown \(triple fault\)"),
        ([overdue], None, {}, "timeout"),
        ([ProcessorLost("QEMU is gone")], None, {}, "failed: QEMU is gone"),
        ([Outcome.OFF], None, {"fail_on": ["ud"]}, "stopped by a rule: ud raised once: #UD at f000:fff0"),
        ([Outcome.OFF], None, {"expect": ["ud=2"]}, "power off: ud=2 expected 2 of ud, got 1"),
    ],
)
def test_a_guest_that_ended_badly(ran, steps, exit_status, options, first):
    with pytest.raises(GuestFailed, match=first) as caught:
        ran(UD, *steps, exit_status=exit_status, **options).check()
    assert re.match(first, str(caught.value))


def test_the_message_has_all_that_is_known():
    with pytest.raises(GuestFailed) as caught:
        run("sample:no-idt", exceptions="all").check()
    first, *rest = str(caught.value).splitlines()
    assert first == (
        "shutdown (triple fault): #UD at 0x101314: ud2 always raises #UD. No handler could be called, since no IDT is "
        "loaded: IDTR has base 0 and limit 0."
    )
    for line in ("triple fault: the last exceptions, newest last", "why it shut down", "recorded: 1 #UD, 1 #DF, 3 #GP"):
        assert line in rest
    for start in (
        "at the shutdown  cpl 0",
        "->",
        "Cause: no handler could be called, since no IDT is loaded",
        "With an IDT whose entry 6",
        "guest: shut",
    ):
        assert any(line.startswith(start) for line in rest), start


# ---- never


def test_what_never_came(mixed):
    assert mixed.never() is None
    assert mixed.never("gp", "user:ud", "kernel:pf@main", "pf@nothing*", "df") is None


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["ud"], "ud was raised once: #UD "),
        (["gp", "pf"], "pf was raised 3 times, first: #PF   cpl 0  "),
        (["kernel:pf"], "kernel:pf was raised once: #PF   cpl 0  "),
        (["user:pf@copy_*"], r"user:pf@copy_\* was raised 2 times, first: #PF   cpl 3  .* copy_user_fast\+0x1"),
        (["ud", "user:all"], "ud was raised once: .*\nuser:all was raised 2 times"),
    ],
)
def test_what_came_all_the_same(mixed, rules, message):
    with pytest.raises(GuestFailed, match=message) as caught:
        mixed.never(*rules)
    assert "recorded: 1 #UD, 3 #PF" in str(caught.value)


@pytest.mark.parametrize("rule", ["", "pff", "kernle:pf", "pf@"])
def test_what_is_not_a_rule(mixed, rule):
    with pytest.raises(UsageError, match="rule"):
        mixed.never(rule)


# ---- expect


@pytest.mark.parametrize(
    ("rule", "how", "seqs"),
    [
        ("pf", {}, [0, 1, 3]),
        ("pf=3", {}, [0, 1, 3]),
        ("all", {"count": 4}, [0, 1, 2, 3]),
        ("pf", {"cpl": 3, "at": "copy_user*", "count": 2}, [1, 3]),
        ("kernel:pf", {"count": 1}, [0]),
        ("any:pf@copy_*", {"cpl": 3}, [1, 3]),
        ("gp", {"count": 0}, []),
        ("ud", {"cpl": 3, "count": 0}, []),
    ],
)
def test_what_is_expected_and_came(mixed, rule, how, seqs):
    found = mixed.expect(rule, **how)
    assert isinstance(found, Exceptions)
    assert [exc.seq for exc in found] == seqs


@pytest.mark.parametrize(
    ("rule", "how", "message"),
    [
        ("gp", {}, "expected at least 1 of gp, got 0"),
        ("pf", {"count": 2}, "expected 2 of pf, got 3"),
        ("pf=4", {}, "expected 4 of pf, got 3"),
        ("pf", {"cpl": 3, "at": "copy_user*", "count": 3}, "expected 3 of pf with CPL 3 at copy_user*, got 2"),
        ("kernel:pf", {"cpl": 3}, "expected at least 1 of kernel:pf with CPL 3, got 0"),
        ("ud", {"at": "copy*"}, "expected at least 1 of ud at copy*, got 0"),
    ],
)
def test_what_is_expected_and_did_not_come(mixed, rule, how, message):
    with pytest.raises(GuestFailed) as caught:
        mixed.expect(rule, **how)
    assert str(caught.value).splitlines()[0] == message


@pytest.mark.parametrize(
    ("rule", "how", "message"),
    [
        ("pf=3", {"count": 3}, "'pf=3' has a count already"),
        ("pf", {"cpl": 4}, "privilege levels are 0 to 3"),
        ("nothing", {}, "rule 'nothing'"),
    ],
)
def test_what_cannot_be_expected(mixed, rule, how, message):
    with pytest.raises(UsageError, match=message):
        mixed.expect(rule, **how)


# ---- of very many exceptions


@pytest.fixture
def many(ran):
    """Ten #PF of the user's, then seventy #UD; of the eighty the newest 75 are in memory."""
    found = ran(*[at(PF, 0x2000, cpl=3)] * 10, *[at(UD, 0x1000)] * 70, keep=75)
    assert len(found.exceptions) == 75
    return found


def test_vectors_are_counted_without_their_records(many):
    many.never("gp", "df")
    assert len(many.expect("pf", count=10)) == 5
    with pytest.raises(GuestFailed, match="pf was raised 10 times, first: #PF"):
        many.never("pf")
    with pytest.raises(GuestFailed, match="expected 5 of pf, got 10"):
        many.expect("pf", count=5)


def test_a_vector_of_which_no_record_is_left(ran):
    found = ran(at(PF, 0x2345), *[UD] * 64, keep=64)
    with pytest.raises(GuestFailed, match="pf was raised once: #PF at 0x2345"):
        found.never("pf")


def test_what_records_in_memory_decide(many):
    many.never("user:ud", "kernel:gp")
    many.expect("user:pf")
    many.expect("ud", cpl=0, count=70)
    with pytest.raises(GuestFailed, match="user:pf was raised at least 5 times, first: #PF"):
        many.never("kernel:pf", "user:pf")
    with pytest.raises(GuestFailed, match="expected 4 of user:pf, got at least 5"):
        many.expect("user:pf", count=4)
    with pytest.raises(GuestFailed, match="expected 11 of user:pf, got at least 5"):
        many.expect("user:pf", count=11)


@pytest.mark.parametrize("ask", ["never", "expect"])
@pytest.mark.parametrize("rule", ["ud", "ud,gp", "kernel:ud@copy_*"])
def test_a_rule_about_what_was_not_forced(ran, ask, rule):
    found = ran(PF, exceptions="all,!ud")
    with pytest.raises(UsageError, match=f"{re.escape(rule)}: #UD is not forced; add ud to --exceptions"):
        getattr(found, ask)(rule)
    assert found.expect("all").columns


def test_what_was_forced_for_a_while_can_be_asked_for():
    with Machine(processor=ScriptedProcessor([Outcome.RESET]), exceptions="ud") as m:
        m.set_exceptions("pf")
        m.run()
        m.result().never("ud", "pf")
        with pytest.raises(UsageError, match="gp: #GP is not forced"):
            m.result().never("gp")


@pytest.mark.parametrize(
    "ask",
    [
        lambda run: run.never("kernel:pf"),
        lambda run: run.expect("user:pf", count=10),
        lambda run: run.expect("kernel:pf"),
        lambda run: run.expect("pf", cpl=0, count=0),
    ],
)
def test_what_they_do_not_decide_is_said(many, ask):
    with pytest.raises(UsageError, match=r"cannot be decided: 5 exceptions .* no longer in memory; keep=80 keeps all"):
        ask(many)


def test_vectors_are_those_of_the_counts(mixed):
    assert {row.vector: row.times for row in mixed.counts} == {Vector.PF: 3, Vector.UD: 1}
