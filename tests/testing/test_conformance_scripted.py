"""A processor by the manual passes every check, and one that departs from it passes none."""

import pytest

from trapline.arch.consistency import RULES
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.vectors import FORCEABLE, Vector, bits
from trapline.machine.processor import Outcome
from trapline.machine.scripted import MANUAL, ScriptedProcessor
from trapline.testing.conformance import CHECKS, ConformanceError, Exit, run, script
from trapline.testing.conformance.consistency import BREAKS
from trapline.testing.conformance.exceptions import NOT_RAISED
from trapline.testing.conformance.modes import CODE, CODE_SIZE, DATA

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
EXITS = [check for check in CHECKS if isinstance(check.turns[-1].expected, Exit)]
STATES = [check for check in EXITS if check.turns[-1].expected.keeps_state]


def play(check, steps):
    with ScriptedProcessor([Outcome.RESET, *steps]) as processor:
        assert processor.run(None) is Outcome.RESET
        run(check, processor)


def after_last(check, change):
    """Return the script with something changed after its last step."""
    *steps, last = script(check)

    def step(processor):
        outcome = last(processor)
        change(processor)
        return outcome

    return [*steps, step]


@every_check
def test_the_manual_passes(check):
    play(check, script(check))


def test_a_machine_that_goes_off_fails():
    for check in CHECKS:
        with pytest.raises(ConformanceError, match=r"run ends with OFF, expected"):
            play(check, script(check)[:-1])


def test_another_exit_fails():
    def change(processor):
        processor.vmcb.control.exit_code = ExitCode.NPF

    for check in EXITS:
        with pytest.raises(ConformanceError, match=r"the exit is NPF .*, expected"):
            play(check, after_last(check, change))


def set_field(path, change):
    def changed(processor):
        names = path.split(".")
        structure = processor.gprs if names[0] == "gprs" else getattr(processor.vmcb, names[0])
        for name in names[1:-1]:
            structure = getattr(structure, name)
        setattr(structure, names[-1], change(getattr(structure, names[-1])))

    return changed


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("save.rip", lambda value: value + 1, "RIP is"),
        ("save.rflags", lambda value: value ^ 1 << 6, "RFLAGS is"),
        ("save.cr2", lambda value: value ^ 8, "CR2 is"),
        ("save.dr6", lambda value: value ^ 1, "DR6 is"),
        ("gprs.rsi", lambda value: value + 1, "RSI is"),
        ("save.cs.base", lambda value: value + 16, "CS.base is"),
        ("control.exit_int_info", lambda value: encode(Event(0x99, EventType.INTR)), "EXITINTINFO holds interrupt"),
        ("control.interrupt_shadow", lambda value: value ^ 1, "the interrupt shadow is"),
        ("control.int_ctl", lambda value: value ^ 1 << 8, "V_IRQ is"),
        ("control.event_inj", lambda value: value | 1 << 31, "EVENTINJ.V is still set"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_wrong_state_fails(path, change, words):
    for check in STATES:
        if not check.turns[-1].expected.drops or path != "control.exit_int_info":  # the manual leaves that one open
            with pytest.raises(ConformanceError, match=words):
                play(check, after_last(check, set_field(path, change)))


def with_information(name):
    return [check for check in STATES if getattr(check.turns[-1].expected, name) is not None]


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [("info_1", "exit_info_1", "EXITINFO1 is"), ("info_2", "exit_info_2", "EXITINFO2 is"), ("nrip", "nrip", "nRIP is")],
)
def test_wrong_information_fails(name, field, words):
    checks = with_information(name)
    assert len(checks) > 5
    for check in checks:
        with pytest.raises(ConformanceError, match=words):
            play(check, after_last(check, set_field(f"control.{field}", lambda value: value + 1)))


def test_a_wrong_frame_fails():
    checks = [check for check in CHECKS if check.name.startswith("inject")]
    assert len(checks) > 50
    for check in checks:
        quiet, first, *rest = script(check)

        def step(processor, first=first):
            first(processor)
            save = processor.vmcb.save
            memory = processor.memory
            memory.write(save.rsp, bytes((memory.read(save.rsp, 1)[0] ^ 0x80,)))

        with pytest.raises(ConformanceError, match="memory at"):
            play(check, [quiet, step, *rest])


def test_a_wrong_store_fails():
    check = next(check for check in CHECKS if check.name == "memory")

    with pytest.raises(ConformanceError, match=f"memory at {DATA + 8:#x} is"):
        play(check, after_last(check, lambda processor: processor.memory.write(DATA + 8, b"\0")))


def test_words_name_check_turn_and_difference():
    check = next(check for check in CHECKS if check.name == "memory")
    with pytest.raises(ConformanceError, match=r"^memory, turn 2: RAX is 0x0, expected 0xbadcafb$"):
        play(check, after_last(check, set_field("save.rax", lambda value: 0)))


def test_names_are_unique_and_words_are_one_line():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.description and "\n" not in check.description for check in CHECKS)


def test_each_check_has_a_place_of_its_own():
    assert all(len(check.code) <= CODE_SIZE for check in CHECKS)
    assert len({check.at for check in CHECKS}) == len(CHECKS)
    assert min(check.at for check in CHECKS) > CODE
    assert max(check.at for check in CHECKS) + CODE_SIZE <= DATA


def test_each_forceable_vector_is_raised_or_says_why_not():
    names = " ".join(check.name for check in CHECKS)
    for vector in bits(FORCEABLE):
        assert (f"#{Vector(vector).name} by" in names) is (vector not in NOT_RAISED)
        assert f"inject #{Vector(vector).name}" in names


def test_each_rule_of_vmrun_is_broken():
    assert set(BREAKS) == {rule.text for rule in RULES}


def test_a_processor_without_the_code_of_ts_is_not_asked_for_it():
    without = MANUAL._replace(ts_error_code=False)
    asked = {check.name for check in CHECKS if check.why_not(without) is None}
    (left,) = {check.name for check in CHECKS} - asked
    assert left.startswith("#TS")
    assert all(check.why_not(MANUAL) is None for check in CHECKS)
