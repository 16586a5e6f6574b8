"""The log in which QEMU writes the resets of its CPU."""

import os
from pathlib import Path

import pytest

from trapline.errors import MonitorDamaged
from trapline.processors.qemu.damage import Damage
from trapline.processors.qemu.layout import CODE_AT, PML4_AT, TABLES_AT
from trapline.processors.qemu.resets import Resets

RESET = b"CPU Reset (CPU 0)\nEAX=00000000 EBX=00000000\n"
CRASH = b"Triple fault\n" + RESET


@pytest.fixture
def log():
    """QEMU's end of a log: it writes where it was, whatever becomes of the file."""
    descriptor = os.memfd_create("log")
    with Path(f"/proc/self/fd/{descriptor}").open("wb", buffering=0) as file:
        file.descriptor = descriptor
        yield file
    os.close(descriptor)


@pytest.fixture
def damage(shared):
    return Damage(shared, isolated=False, q35=False)


@pytest.fixture
def resets(log, damage):
    return Resets(log.descriptor, damage)


def test_a_reset_is_reported_twice(log, resets):
    """By the firmware, which asks where to map the shared memory, and by the monitor."""
    assert not resets.came()
    for _ in range(3):
        log.write(RESET * 2)
        assert resets.came()
        resets.check()
        resets.begin()
        assert not resets.came()
        assert os.fstat(log.descriptor).st_size == 0


@pytest.mark.parametrize("report", ["check", "begin"])
def test_a_report_without_a_reset_is_forged(log, resets, report):
    log.write(RESET)
    resets.check()
    resets.begin()
    with pytest.raises(MonitorDamaged, match=r"it reports a reset that was none\); use --isolate$"):
        getattr(resets, report)()


@pytest.mark.parametrize("ask", ["came", "check", "begin"])
def test_a_crash_is_told_from_a_reset(log, resets, ask):
    log.write(RESET)
    resets.begin()
    log.write(CRASH)
    for _ in range(2):  # and it stays so
        with pytest.raises(MonitorDamaged, match="it crashed"):
            getattr(resets, ask)()


def test_a_shutdown_by_the_firmware_is_not_a_crash(log, resets):
    """Of a CPU that got an INIT (`unlock`)."""
    log.write(RESET + CRASH)
    resets.check()
    resets.begin()


def test_a_crash_that_was_ordered(log, resets):
    for _ in range(3):
        resets.order()
        log.write(CRASH)
        resets.check()
        resets.begin()
    log.write(CRASH)
    with pytest.raises(MonitorDamaged):
        resets.came()


@pytest.mark.parametrize(
    ("at", "what"),
    [
        (CODE_AT + 7, "its code was written over"),
        (TABLES_AT, "its descriptor tables were written over"),
        (PML4_AT + 0x2FFF, "its page tables were written over"),
    ],
)
def test_why_it_crashed_is_told_where_it_is_seen(shared, log, resets, damage, at, what):
    assert damage.written_over() is None
    damage.keep()
    assert damage.written_over() is None
    shared.memory[at] ^= 1
    damage.keep()
    assert damage.written_over() == what
    log.write(CRASH)
    with pytest.raises(MonitorDamaged, match=what):
        resets.came()


def test_without_a_log_nothing_is_known(damage):
    resets = Resets(None, damage)
    resets.check()
    resets.begin()
    assert not resets.came()


@pytest.mark.parametrize(
    ("isolated", "q35", "sentence"),
    [
        (False, False, "the guest damaged trapline's monitor (x); use --isolate"),
        (False, True, "the guest damaged trapline's monitor (x); use --isolate, which needs a pc machine"),
        (True, False, "trapline's monitor was damaged (x) although --isolate keeps the guest's CPU away from it"),
    ],
)
def test_the_sentence(shared, isolated, q35, sentence):
    with pytest.raises(MonitorDamaged) as caught:
        Damage(shared, isolated=isolated, q35=q35).found("x")
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 1
