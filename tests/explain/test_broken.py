"""Each classic mistake is named, on both processors."""

import shutil

import pytest

from tests.explain.broken import ALL, NOT_ON_QEMU, REAL
from tests.explain.kinds import FIRST_FAULTS, KINDS, MODES, PAGING
from tests.explain.rule_guests import ON_QEMU_ALONE, RULES
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


NOT_CHECKED_BY_QEMU = {
    "LME without PAE": "it ignores the MOV to CR0",
    "paging off": "it leaves long mode",
    "paging without protected mode": "it takes that value of CR0, which is a warning: see `test_tolerated`",
    "EFER": "it takes any value of EFER, which is a warning: see `test_tolerated`",
}
AT_ONCE = (*PAGING, *MODES, *ON_QEMU_ALONE)
"""The rules about single instructions ask the state alone: `make soak` shows that QEMU comes to the same states."""


def on_qemu(kinds):
    names = {kind.name for kind in (*KINDS, *RULES)}
    assert names >= NOT_CHECKED_BY_QEMU.keys()
    chosen = [kind for kind in kinds if kind.name not in NOT_CHECKED_BY_QEMU]
    return [pytest.param(kind, id=kind.name, marks=() if kind in AT_ONCE else pytest.mark.soak) for kind in chosen]


def check_kind(guest, broken, processor):
    path, options = guest(broken), {}
    if broken.symbols:
        named = path.with_name("System.map")
        named.write_text(broken.symbols)
        options["symbols"] = [str(named)]
    if broken.cpu is not None and processor == "qemu":
        options["qemu_options"] = ["-cpu", broken.cpu]
    result = run(path, exceptions="all", memory="64M", processor=processor, timeout=120, **options)
    assert result.ending is Ending.SHUTDOWN
    assert broken.found_in(result.explanation), result.explanation
    assert result.explanation.causes
    assert result.explanation.unproven is None


@pytest.mark.parametrize("broken", [*KINDS, *RULES], ids=lambda broken: broken.name)
def test_what_stops_a_kernel_early_is_named(guest, broken):
    check_kind(guest, broken, "unicorn")


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("broken", on_qemu([*PAGING, *MODES, *FIRST_FAULTS, *RULES, *ON_QEMU_ALONE]))
def test_what_stops_a_kernel_early_is_named_under_qemu(guest, broken):
    check_kind(guest, broken, "qemu")
