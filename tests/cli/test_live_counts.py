import sys
import time

import pytest

from trapline.cli import live_counts
from trapline.cli.live_counts import LiveCounts, Meter
from trapline.cli.main import _with_run
from trapline.machine.record import Record
from trapline.trace.tally import Tally


def test_rates_are_of_late_and_of_all_the_time():
    meter = Meter(10.0)
    assert meter.rows({14: 30}, 12.0) == [("#PF (14)", "30", "15", "15"), ("all", "30", "15", "15")]
    assert meter.rows({6: 4, 14: 30}, 14.0) == [
        ("#UD (6)", "4", "2", "1"),
        ("#PF (14)", "30", "0", "8"),
        ("all", "34", "2", "8"),
    ]


def test_the_table_is_drawn_on_a_terminal_alone(capfd, monkeypatch):
    tally = Tally()
    record = Record()
    record.vector = 14
    tally.add(bytes(record) * 1234)
    with LiveCounts(tally):
        pass
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(live_counts, "_EVERY", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    told = ""
    with LiveCounts(tally):
        deadline = time.monotonic() + 20
        while "1,234" not in told and time.monotonic() < deadline:
            time.sleep(0.01)
            told += capfd.readouterr().err
    assert "#PF (14)" in told


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("stat --live a.elf --timeout 5", "run --stat a.elf --timeout 5"),
        ("-v stat a.elf --live", "-v run --stat a.elf"),
        ("stat a.parquet", "stat a.parquet"),
        ("run --live a.elf", "run --live a.elf"),
        ("", ""),
        ("--live", "--live"),
    ],
)
def test_a_live_stat_is_a_run(given, read):
    assert _with_run(given.split()) == read.split()


def test_it_does_not_go_with_live_lines(trapline_command):
    done = trapline_command("run", "sample:ud", "--stat", "--live")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--stat and --live" in done.err


def test_a_guest_is_run(trapline_command):
    done = trapline_command("stat", "--live", "sample:ud")
    assert done.status == 0
    assert "#UD (6)" in done.err
