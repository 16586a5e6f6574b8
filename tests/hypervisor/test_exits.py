import pytest

from trapline.arch.exits import EXCEPTION_EXITS, INTERCEPTS, ExitCode, clear_intercept, is_intercepted
from trapline.arch.vectors import FORCEABLE
from trapline.hypervisor.exits import ExitTable
from trapline.hypervisor.handlers import TABLE
from trapline.machine.processor import Outcome


def owner(vcpu):
    return None


def test_codes_and_ranges_get_their_owner():
    table = ExitTable()
    assert table.on(ExitCode.HLT, range(0x40, 0x42))(owner) is owner
    assert table.handlers() == {ExitCode.HLT: owner, 0x40: owner, 0x41: owner}


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (ExitCode.CPUID, ExitCode.CPUID, "CPUID already has a handler"),
        (EXCEPTION_EXITS, 0x41, "exception #DB already has a handler"),
        (0x4E, EXCEPTION_EXITS, "exception #PF already has a handler"),
        (0x4FF, 0x4FF, "exit code 0x4ff already has a handler"),
    ],
)
def test_a_second_owner_is_refused(first, second, words):
    table = ExitTable()
    table.on(first)(owner)
    with pytest.raises(ValueError, match=words):
        table.on(second)(owner)


def test_the_finished_table_is_read_only():
    with pytest.raises(TypeError):
        TABLE.handlers()[0x400] = owner


def test_every_exception_has_the_one_entry():
    assert len({TABLE.handlers()[code] for code in EXCEPTION_EXITS}) == 1


@pytest.mark.parametrize("mask", [0, 0x6040, FORCEABLE])
@pytest.mark.parametrize("hides_svm", [False, True])
def test_every_intercept_that_can_be_set_has_an_owner(play, mask, hides_svm):
    played = play(mask=mask, capabilities={"hides_svm": hides_svm})
    control = played.entry.vmcb.control
    every = [*INTERCEPTS, *EXCEPTION_EXITS]
    intercepted = [code for code in every if is_intercepted(control, code)]
    assert ExitCode.VMRUN in intercepted  # VMRUN refuses a VMCB without it
    assert set(intercepted) <= set(TABLE.handlers())
    for code in intercepted:
        clear_intercept(control, code)
    words = [name for name, *_ in type(control)._fields_ if name.startswith("intercept_")]
    assert len(words) == 6
    assert not any(getattr(control, name) for name in words), "an intercept that has no name"


def test_the_table_owns_nothing_that_cannot_be_asked_for(play):
    asked = play(mask=FORCEABLE).entry.vmcb.control
    refused = {code for code in EXCEPTION_EXITS if not FORCEABLE >> code - EXCEPTION_EXITS.start & 1}
    owned = set(TABLE.handlers()) - refused
    assert owned == {code for code in [*INTERCEPTS, *EXCEPTION_EXITS] if is_intercepted(asked, code)}


def test_outcomes_that_are_no_exit_never_reach_the_table(play):
    assert len(play(Outcome.KICKED, mask=FORCEABLE, exit_code=0x40).processor.entries) == 3
