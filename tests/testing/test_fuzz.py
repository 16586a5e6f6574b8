"""Random programs: the same with no exception forced and with all of them."""

import random

import fuzz
import pytest

from trapline.arch.vectors import FORCEABLE
from trapline.testing.fuzz import MODES, End, Runner, first_difference, generate

pytestmark = pytest.mark.slow

FIXED = "0"
ROTATING = str(random.SystemRandom().randrange(1 << 32))
PROGRAMS = 1200


@pytest.mark.parametrize("seed", [FIXED, ROTATING], ids=["fixed", "rotating"])
def test_forcing_changes_nothing(seed):
    print(f"python tools/fuzz.py --seed {seed} --programs {PROGRAMS}")
    with Runner(lambda: fuzz.open_unicorn(sets_rf=True)) as runner:
        compared, found = 0, []
        for number in range(PROGRAMS):
            program = generate(MODES[number % len(MODES)], f"{seed} {number}")
            forced = runner.run(program, FORCEABLE)
            assert forced.end not in (End.FAILED, End.OTHER), f"{program}\n{forced.detail}"
            if forced.end in (End.HALT, End.SHUTDOWN):
                compared += 1
                found.append(first_difference(program, forced, runner.run(program, 0), records=False))
    wrong = [str(difference) for difference in found if difference is not None]
    assert not wrong, "\n".join(wrong)
    assert compared > PROGRAMS // 2


def test_a_seed_gives_one_program():
    for mode in MODES:
        assert generate(mode, "7 3") == generate(mode, "7 3") != generate(mode, "7 4")
