import re

import pytest

from benchmarks.figures import Rounds, load
from tests.benchmarks.made import measured, table
from tools.cost_section import PAGES, page, questions, rounded, section, speed

MILLION = 1_000_000


def figures():
    """Return figures of a machine where an addition takes 40 ns."""
    boot = {"plain QEMU": 4.0, "none": 4.2, "all,!pf": 4.4, "all": 4.6, "none, isolated": 5.0, "all, isolated": 6.0}
    loop = {"plain QEMU": 1.0, "none": 2.0, "all": 12.0, "QEMU -d int": 26.0}
    both = {"times": MILLION, "shares": {"all": "none", "QEMU -d int": "plain QEMU"}}
    decided = {"times": MILLION, "shares": {"decided": "nothing forced", "eventfd": None}}
    here = {"Unicorn, skipping": 5.0, "passed on": 8.0, "decided": 14.0}
    idle = {"without": 2.0, "gdb, idle": 2.02}
    return {
        "boot": measured(boot=table(boot | {"QEMU -d int": 5.2}, counts={"all": {"recorded": 12345}})),
        "smp": measured(smp=table({"plain QEMU": 5.0, "none": 5.5, "all": 6.0})),
        "recorded-boot": measured(
            **{"recorded-boot": table({"nowhere": 4.0, "Parquet": 4.4, "-d int, imported": 8.8})}
        ),
        "black-box": measured(
            **{"black-box": table({"with": 8.08, "without": 8.0}, counts={"with": {"recorded": 43210}})}
        ),
        "loops": measured(ud=table(loop, **both), pf=table(loop | {"all": 22.0}, **both)),
        "python": measured(
            decision=table({"decided": 31.0, "nothing forced": 1.0, "eventfd": 12.0}, **decided),
        ),
        "ring": measured(ring=table({"counted": 0.4}, times=MILLION, shares={"counted": None})),
        "in-process": measured(
            ud=table(here, times=MILLION, shares=dict.fromkeys(here)), quiet=table({"all": 1.01, "Unicorn": 1.0})
        ),
        "gdb": measured(**{f"idle, {name}": table(idle) for name in ("qemu", "unicorn")}),
    }


@pytest.mark.parametrize(("name", "pieces"), [("README.md", ["section", "speed"]), ("trace.md", ["questions"])])
def test_a_page_has_the_committed_figures(name, pieces):
    path = next(path for path in PAGES if path.name == name)
    text, figures = path.read_text(encoding="utf-8"), load()
    assert re.findall(r"<!-- cost: (\w+) -->", text) == pieces
    assert text == page(text, figures), "`make docs` writes it"


@pytest.mark.parametrize(
    "line",
    [
        "| nothing forced | 1.05 | 0.81 | 1.05 |",
        "| everything forced, some 12,000 exceptions recorded | 1.15 | 0.88 | 1.15 |",
        "| everything forced, isolated | 1.50 | 1.15 | 1.50 |",
        "| QEMU with `-d int` | 1.30 | 1.00 | 1.30 |",
        "| everything forced, 4 CPUs, against QEMU with 4 | 1.20 | | 1.20 |",
        "| #UD, recorded and forwarded by the monitor | 10.0 | 250 | 0.40 x what `-d int` costs |",
        "| #PF, likewise | 20.0 | 500 | 0.80 x what `-d int` costs |",
    ],
)
def test_a_line(line):
    assert line in section(figures()).splitlines()


@pytest.mark.parametrize(
    "part",
    [
        "Python | 30.0 | 750 | 2.50 x the round trip of an eventfd between two processes (12.0 us) |",
        "| 8.0 | 200 | 1.60 x Unicorn",
        "by an observer | 14.0 | 350 | 2.80 x the same |",
        "| 0.4 | 10 | 2.5 million a second |",
        "Parquet takes 1.10 x as long",
        "0.50 x as long as `-d int`",
        "43,000 exceptions 1.01 x",
        "load average of 0.5 to 1.5",
        "3 boots",
        "QEMU 7.2.22, Unicorn 2.1.4 and Python 3.11.2 on 2 cores (a processor)",
    ],
)
def test_a_part_of_it(part):
    assert part in " ".join(section(figures()).split())


def test_the_speed_of_a_decision_is_told_against_forwarding():
    told = "some 100,000 exceptions a second; for the rest it asks Python, which takes 3.0 times as long"
    assert " ".join(speed(figures()).split()) == told


def test_questions_are_told_with_time_and_memory():
    one = table({"stat": 3.0})
    one.rounds["stat"] = Rounds((1.0,), (3.04,), (165 << 20,))
    told = questions({"traces": measured(verbs=one)})
    assert told.strip().splitlines() == [
        "| command | processor time | memory |",
        "| --- | --- | --- |",
        "| `stat` | 3.0 s | 165 MiB |",
    ]


def test_only_what_is_marked_is_written():
    text = "before <!-- cost: speed -->old<!-- end of cost --> between <!-- another --> after"
    assert page(text, figures()) == text.replace("old", speed(figures()))


def test_two_digits_are_kept():
    assert [rounded(value) for value in (0.4, 12.6, 12345, 98765.4)] == [0, 13, 12000, 99000]
