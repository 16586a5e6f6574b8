"""Kernels that are broken at random: no wrong cause is told, and of the same kernels unbroken nothing."""

import shutil

import pytest

from tools.broken_guests import handlers
from tools.broken_guests.generate import generate
from tools.broken_guests.judge import Verdict, judge, judge_run, judge_twin, run
from tools.broken_guests.planted import FAULTS

pytestmark = pytest.mark.slow

QUICK = [fault for fault in FAULTS if set(fault.styles) - set(handlers.ENDLESS)]
GUESTS, ON_QEMU = 45, 10


def broken(number, faults):
    """Return a guest of each kind in turn that ends by itself."""
    fault = faults[number % len(faults)]
    quick = fault._replace(styles=[style for style in fault.styles if style not in handlers.ENDLESS])
    return generate(f"{fault.name} {number}", [quick])


def check(guests, folder, processor):
    print("python -m tools.broken_guests", "--qemu" if processor == "qemu" else "")
    verdicts = []
    for guest in guests:
        judged, _ = judge(guest, folder, processor)
        assert judged.verdict is not Verdict.WRONG, f"{guest}: {judged}"
        verdicts.append(judged.verdict)
    return verdicts


def test_no_wrong_cause_is_told(tmp_path):
    verdicts = check([broken(number, QUICK) for number in range(GUESTS)], tmp_path, "unicorn")
    assert verdicts.count(Verdict.RIGHT) > 0.8 * GUESTS


def test_nothing_is_told_of_the_same_guests_without_their_faults(tmp_path):
    for number in range(0, GUESTS, 3):
        guest = broken(number, QUICK)
        judged = judge_twin(guest, tmp_path, "unicorn")
        assert judged.verdict is Verdict.RUNS_ON, f"{guest}: {judged}"


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_no_wrong_cause_is_told_on_qemu(tmp_path):
    kinds = [fault for fault in QUICK if "gate" in fault.name or "entry" in fault.name or "IRET" in fault.name]
    verdicts = check([broken(number, kinds) for number in range(ON_QEMU)], tmp_path, "qemu")
    assert verdicts.count(Verdict.RIGHT) > 0.5 * ON_QEMU


def test_a_wrong_cause_is_noticed(tmp_path):
    guest = broken(0, QUICK)
    result = run(guest.image, tmp_path, "unicorn")
    assert judge_run(guest, result).verdict is Verdict.RIGHT
    other = guest._replace(planted=guest.planted._replace(right=("something else",)))
    assert judge_run(other, result).verdict is Verdict.WRONG
    assert judge_run(guest._replace(planted=guest.planted._replace(vectors=(1,))), result).verdict is Verdict.WRONG
