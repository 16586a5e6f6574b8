"""Writes what the pages say of costs from benchmarks/figures.json, which `make bench` writes.

The pieces stand between `<!-- cost: NAME -->` and `<!-- end of cost -->`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Final

from benchmarks.figures import ADDITION, SYSTEM_CALL, YARDSTICKS, Figures, Machine, Rounds, Table, load

_ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (_ROOT / "README.md", _ROOT / "docs" / "trace.md")
_MARKED: Final = re.compile(r"(<!-- cost: (\w+) -->)(.*?)(<!-- end of cost -->)", re.S)
_WIDTH: Final = 140
_TABLES: Final = {
    "boot": ("boot",),
    "smp": ("smp",),
    "recorded-boot": ("recorded-boot",),
    "black-box": ("black-box",),
    "loops": ("ud", "pf"),
    "python": ("decision",),
    "ring": ("ring",),
    "in-process": ("ud", "quiet"),
    "gdb": ("idle, qemu", "idle, unicorn"),
}
"""What is quoted: of each benchmark, the tables."""
_BOOTS: Final = {
    "none": "nothing forced",
    "all,!pf": "everything but #PF forced",
    "all": "everything forced, some {recorded:,} exceptions recorded",
    "none, isolated": "nothing forced, isolated",
    "all, isolated": "everything forced, isolated",
    "QEMU -d int": "QEMU with `-d int`",
}


def page(text: str, figures: Figures) -> str:
    """Return a page with its marked pieces as the figures have them."""
    pieces = {"section": section, "speed": speed, "questions": questions}
    return _MARKED.sub(lambda marked: f"{marked[1]}{pieces[marked[2]](figures)}{marked[4]}", text)


def section(figures: Figures) -> str:
    """Return the section: what everything costs, against its peers."""
    tables = ("\n".join(part(figures)) for part in (_boots, _exceptions))
    texts = (fill(part(figures), _WIDTH, break_on_hyphens=False) for part in (_conditions, _yardsticks, _others))
    conditions, yardsticks, others = texts
    return "\n\n" + "".join(f"{part}\n\n" for part in (conditions, *tables, yardsticks, others))


def speed(figures: Figures) -> str:
    """Return how fast the monitor forwards exceptions, and how much longer a decision in Python takes."""
    forwarded = _table(figures, "loops", "ud").share("all")
    decided = _table(figures, "python", "decision").share("decided")
    return (
        f"some {rounded(1 / forwarded):,} exceptions a second;\n"
        f"for the rest it asks Python, which takes {decided / forwarded:.1f} times as long"
    )


def questions(figures: Figures) -> str:
    """Return what questions to a stored trace cost."""
    table = _table(figures, "traces", "verbs")
    rows = (
        f"| `{name}` | {table.median(name, 'used'):.1f} s | {_memory(table.rounds[name])} |"
        for name in table.rounds
        if name not in YARDSTICKS
    )
    return "\n".join(("", "", "| command | processor time | memory |", "| --- | --- | --- |", *rows, "", ""))


def _memory(rounds: Rounds) -> str:
    return f"{median(rounds.memory) / (1 << 20):.0f} MiB"


def rounded(value: float) -> int:
    """Return a value with its first two digits alone."""
    return int(float(f"{value:.1e}"))


def _table(figures: Figures, benchmark: str, table: str) -> Table:
    return figures[benchmark].tables[table]


def _conditions(figures: Figures) -> str:
    quoted = [figures[name] for name in _TABLES]
    tables = [_table(figures, name, table) for name, tables in _TABLES.items() for table in tables]
    fewest = min(len(rounds.seconds) for table in tables for rounds in table.rounds.values())
    boots = len(_table(figures, "boot", "boot").rounds["all"].seconds)
    loads = [load for measurement in quoted for load in measurement.load]
    return (
        "`make bench` measures everything in turn with its peer, and keeps each round in `benchmarks/figures.json`. "
        f"These are medians, of {boots} boots each and of at least {fewest} rounds of all else, "
        f"at a load average of {min(loads):.1f} to {max(loads):.1f}. "
        f"{'; '.join(dict.fromkeys(_called(each.machine) for each in quoted))}."
    )


def _called(machine: Machine) -> str:
    programs = f"QEMU {machine.qemu}, Unicorn {machine.unicorn} and Python {machine.python}"
    return f"{programs} on {machine.cores} cores ({machine.cpu})"


def _boots(figures: Figures) -> Iterator[str]:
    boot, smp = _table(figures, "boot", "boot"), _table(figures, "smp", "smp")
    recorded = rounded(boot.counts["all"]["recorded"])
    yield "| Linux to a shell script and off | x plain QEMU | x `-d int` | processor time, x plain QEMU |"
    yield "| --- | --- | --- | --- |"
    for name, text in _BOOTS.items():
        ratios = (
            boot.ratio(name, "plain QEMU"),
            boot.ratio(name, "QEMU -d int"),
            boot.ratio(name, "plain QEMU", "used"),
        )
        yield f"| {text.format(recorded=recorded)} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"
    for name in ("none", "all"):
        wall, used = smp.ratio(name, "plain QEMU"), smp.ratio(name, "plain QEMU", "used")
        yield f"| {_BOOTS[name].partition(',')[0]}, 4 CPUs, against QEMU with 4 | {wall:.2f} | | {used:.2f} |"


def _exceptions(figures: Figures) -> Iterator[str]:
    ud, pf = (_table(figures, "loops", name) for name in ("ud", "pf"))
    decision, here = _table(figures, "python", "decision"), _table(figures, "in-process", "ud")
    ring = _table(figures, "ring", "ring")
    logged = "what `-d int` costs"
    round_trip = f"the round trip of an eventfd between two processes ({decision.share('eventfd') * 1e6:.1f} us)"
    skipped = f"Unicorn and a callback that skips the instruction ({here.share('Unicorn, skipping') * 1e6:.1f} us)"
    yield "| one exception | us | in additions | compared |"
    yield "| --- | --- | --- | --- |"
    for text, table, name, peer, called in (
        ("#UD, recorded and forwarded by the monitor", ud, "all", "QEMU -d int", logged),
        ("#PF, likewise", pf, "all", "QEMU -d int", logged),
        ("#UD under QEMU, decided by an observer in Python", decision, "decided", "eventfd", round_trip),
        ("#UD in this process, recorded and forwarded", here, "passed on", "Unicorn, skipping", skipped),
        ("#UD in this process, decided by an observer", here, "decided", "Unicorn, skipping", "the same"),
    ):
        yield f"| {text} | {_cost(table, name)} | {table.share(name) / table.share(peer):.2f} x {called} |"
    millions = 1e-6 / ring.share("counted")
    yield f"| a record, from the ring to counts | {_cost(ring, 'counted')} | {millions:.1f} million a second |"


def _cost(table: Table, name: str) -> str:
    share = table.share(name)
    return f"{share * 1e6:.1f} | {rounded(share / table.unit(ADDITION)):,}"


def _yardsticks(figures: Figures) -> str:
    decision = _table(figures, "python", "decision")
    addition, call = (decision.unit(name) * 1e9 for name in (ADDITION, SYSTEM_CALL))
    return (
        f"An addition is one turn of a loop in Python, {addition:.0f} ns here: by it the figures of two machines can "
        f"be compared. A system call from Python took {call:.0f} ns."
    )


def _others(figures: Figures) -> str:
    recorded, black_box = (_table(figures, name, name) for name in ("recorded-boot", "black-box"))
    quiet = _table(figures, "in-process", "quiet")
    nowhere, imported = (recorded.ratio("Parquet", peer) for peer in ("nowhere", "-d int, imported"))
    idle = (_table(figures, "gdb", f"idle, {name}") for name in ("qemu", "unicorn"))
    qemu, unicorn = (table.ratio("gdb, idle", "without", "used") for table in idle)
    exceptions = rounded(black_box.counts["with"]["recorded"])
    return (
        f"Recording the boot to Parquet takes {nowhere:.2f} x as long as recording it to nowhere, and {imported:.2f} x "
        "as long as `-d int` and the import of its log. The black box that explains a shutdown costs a boot with "
        f"{exceptions:,} exceptions {black_box.ratio('with', 'without'):.2f} x the same boot without it. A guest that "
        f"raises nothing takes {quiet.ratio('all', 'Unicorn'):.2f} x Unicorn's own time in this process. gdb, attached "
        f"and idle, costs {qemu:.2f} x the processor time without it under QEMU, {unicorn:.2f} x in this process."
    )


if __name__ == "__main__":
    figures = load() or sys.exit("there is no benchmarks/figures.json yet: make bench writes it")
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8"), figures), encoding="utf-8")
