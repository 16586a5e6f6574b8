"""Each classic mistake is named, on both processors."""

import shutil

import pytest

from tests.explain.broken import ALL, NOT_ON_QEMU, REAL
from tests.explain.kinds import KINDS, MODES, ON_QEMU
from trapline.api import run
from trapline.arch.events import SHUTDOWN
from trapline.arch.paging import PAGE
from trapline.report.result import Ending


@pytest.fixture
def guest(tmp_path):
    """Return a function that builds a broken guest as a file."""

    def guest(broken):
        path = tmp_path / "guest"
        image = broken.image()
        path.write_bytes(image.ljust(1 << 20, b"\0") if broken in (*REAL, *MODES) else image)
        return path

    return guest


def on_all_but(reasons):
    assert reasons.keys() <= {broken.name for broken in ALL}
    chosen = [broken for broken in ALL if broken.name not in reasons]
    return pytest.mark.parametrize("broken", chosen, ids=lambda broken: broken.name)


def check(broken, result):
    assert result.ending is Ending.SHUTDOWN
    assert result.explanation.ending is SHUTDOWN
    assert broken.found_in(result.explanation), result.explanation
    assert result.explanation.causes
    assert result.explanation.repair.startswith("with ")
    assert result.explanation.unproven is None
    kept = {result.crash.address // PAGE}
    if result.crash.registers.cpl == 3:
        kept.add(result.crash.registers.rsp // PAGE)
    for change in result.explanation.changes:  # these guests are mapped to their own addresses
        new = [*(gpa for gpa, _ in change.stores), change.registers.get("rsp", 0)]
        assert kept.isdisjoint(address // PAGE for address in new), change


@on_all_but({})
def test_the_planted_cause_is_named(guest, broken):
    check(broken, run(guest(broken), exceptions="all", memory="16M", processor="unicorn", timeout=120))


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@on_all_but(NOT_ON_QEMU)
def test_the_planted_cause_is_named_under_qemu(guest, broken):
    check(broken, run(guest(broken), exceptions="all", memory="64M", processor="qemu", timeout=120))


def check_kind(guest, broken, processor):
    result = run(guest(broken), exceptions="all", memory="64M", processor=processor, timeout=120)
    assert result.ending is Ending.SHUTDOWN
    assert broken.found_in(result.explanation), result.explanation
    assert result.explanation.causes
    assert result.explanation.unproven is None


@pytest.mark.parametrize("broken", KINDS, ids=lambda broken: broken.name)
def test_what_stops_a_kernel_early_is_named(guest, broken):
    check_kind(guest, broken, "unicorn")


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("broken", ON_QEMU, ids=lambda broken: broken.name)
def test_what_is_wrong_with_paging_or_the_mode_is_named_under_qemu(guest, broken):
    check_kind(guest, broken, "qemu")
