"""A run of which only some exceptions are recorded, on each processor."""

import json

import pytest

from tests.session.test_machine import PROCESSORS
from trapline.api import run
from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.report.fold import PLAIN
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
