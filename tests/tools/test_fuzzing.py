"""Random programs: the same with no exception forced and with all of them."""

import shutil
from collections import Counter

import pytest

from tools.fuzzing import places
from tools.fuzzing.campaign import try_program
from tools.fuzzing.machines import open_tcg, open_unicorn
from tools.fuzzing.program import MODES, generate
from tools.fuzzing.runner import End, Runner
from trapline.arch.registers import EFER, RFLAGS
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.arch.vmcb import SaveArea
from trapline.processors.qemu.launch import facts_of
from trapline.processors.qemu.programs import find_qemu

pytestmark = pytest.mark.slow

FIXED = "0"
SEEDS = ("0", "1")
"""The command takes any other; a test that nobody can repeat would only be noise."""
PROGRAMS = 400
AGAINST_QEMU = 150


@pytest.mark.parametrize("seed", SEEDS)
def test_forcing_changes_nothing(seed):
    print(f"python -m tools.fuzzing --seed {seed} --programs {PROGRAMS}")
    compared, wrong = 0, []
    with Runner(lambda: open_unicorn(sets_rf=True), seconds=0.5) as unicorn:
        for number in range(PROGRAMS):
            program = generate(MODES[number % len(MODES)], f"{seed} {number}")
            findings = try_program(program, unicorn)
            assert findings.forced.end not in (End.FAILED, End.OTHER), f"{program}\n{findings.forced.detail}"
            compared += findings.compared
            wrong += map(str, findings.wrong)
    assert not wrong, "\n".join(wrong)
    assert compared > PROGRAMS // 2


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64")
def test_qemu_does_the_same_but_for_named_departures():
    known, wrong = Counter(), []
    with (
        Runner(lambda: open_unicorn(sets_rf=facts_of(find_qemu()).faults_set_rf), seconds=0.5) as unicorn,
        Runner(open_tcg, rewrite=True, seconds=2.0) as qemu,
    ):
        for number in range(AGAINST_QEMU):
            program = generate(MODES[number % len(MODES)], f"{FIXED} {number}")
            findings = try_program(program, unicorn, qemu, ask_qemu=bool(number & 1))
            wrong += map(str, findings.wrong)
            if findings.compared:
                known[findings.known] += 1
    print(dict(known))
    assert not wrong, "\n".join(wrong)
    assert known[None] > AGAINST_QEMU // 3


def test_a_seed_gives_one_program():
    for mode in MODES:
        assert generate(mode, "7 3") == generate(mode, "7 3") != generate(mode, "7 4")


def plain(mode, code):
    """Return a program without a mutation, at CPL 0, whose handlers halt, with other code."""
    for number in range(1000):
        program = generate(mode, f"plain {number}")
        save = SaveArea.from_buffer_copy(program.save)
        halts = program.arena[places.HANDLERS + places.STUB * Vector.UD] == 0xF4
        if not program.mutations and save.cpl == 0 and save.rflags == RFLAGS.ALWAYS_ONE and halts:
            arena = program.arena[: places.CODE] + code + program.arena[places.CODE + len(code) :]
            return program._replace(arena=arena, code=code)
    raise AssertionError("no such program")


def test_a_lock_prefix_makes_int_undefined():
    with Runner(lambda: open_unicorn(sets_rf=True)) as runner:
        run = runner.run(plain("pm32", b"\xf0\xcd\x80"), FORCEABLE)
    assert [record.vector for record in run.records] == [Vector.UD]


def test_a_guest_that_does_nothing_but_raise_exceptions_is_stopped_in_time():
    program = plain("pm32", b"\x0f\x0b")
    handler = places.HANDLERS + places.STUB * Vector.UD
    arena = program.arena[:handler] + b"\xcf" + program.arena[handler + 1 :]  # IRET: back to UD2, again and again
    with Runner(lambda: open_unicorn(sets_rf=True)) as runner:
        assert runner.run(program._replace(arena=arena), 0).end is End.TIME


def test_a_syscall_behind_a_port_access_happens():
    """Who writes to a port asks Unicorn to stop, which it does at the end of the block."""
    program = plain("long", b"\xe6\x80\x0f\x05")
    save = SaveArea.from_buffer_copy(program.save)
    save.efer |= EFER.SCE
    with Runner(lambda: open_unicorn(sets_rf=True)) as runner:
        run = runner.run(program._replace(save=bytes(save)), FORCEABLE)
    assert (run.end, run.save.rip, run.gprs.rcx) == (End.HALT, save.lstar, save.rip + 4)


def test_flags_at_a_refused_port_are_those_before_it():
    for number in range(1000):
        program = generate("pm32", f"refused {number}")
        save = SaveArea.from_buffer_copy(program.save)
        if not program.mutations and save.cpl == 3 and save.rflags == RFLAGS.ALWAYS_ONE:
            break
    code = b"\x83\xcb\xff\xe4\x80\x31\xdb"  # or ebx, -1; in al, 0x80; xor ebx, ebx
    arena = program.arena[: places.CODE] + code + program.arena[places.CODE + len(code) :]
    with Runner(lambda: open_unicorn(sets_rf=True)) as runner:
        first = runner.run(program._replace(arena=arena), FORCEABLE).records[0]
    assert (first.vector, first.rip) == (Vector.GP, places.CODE + 3)
    assert first.rflags & (RFLAGS.SF | RFLAGS.ZF) == RFLAGS.SF
