"""The options of the commands that read traces."""

import argparse
from typing import Final

from trapline.typed import integer

from .file_options import add_force, add_symbols
from .verb import Verb

SORTS: Final = ("count", "key", "first", "last")
"""A copy of `trace.questions.groups.SORTS`: that takes long to load. A test compares them."""
PLACES: Final = ("place", "function")
"""The same of `trace.diff.By`."""
_MANY: Final = 1 << 62
_FILES: Final = "a trace that `trapline run -o` wrote, of any format, or a folder of them"


def _report(report: argparse.ArgumentParser) -> None:
    report.add_argument("files", metavar="FILE", nargs="+", help=_FILES)
    report.add_argument(
        "--by",
        metavar="KEYS",
        default="vector,symbol",
        help="what is counted: vector, symbol, rip, process, cpl, mode, run, any column of docs/conditions.md, or "
        "several with commas between; or time (default: vector,symbol)",
    )
    report.add_argument("--sort", choices=SORTS, default="count", help="the order of the rows (default: count)")
    _add_limit(report, "rows", "20; with --json all")
    _add_filters(report)
    page = report.add_argument_group("a page instead of a table")
    page.add_argument(
        "--html", metavar="FILE", help="write one HTML page that needs nothing else: counts, a timeline, ..."
    )
    add_force(report)
    add_symbols(report)


def _stat(stat: argparse.ArgumentParser) -> None:
    stat.add_argument("files", metavar="FILE", nargs="+", help=_FILES)
    text = "count a guest's while it runs, redrawn in place: `stat --live GUEST`, with the options of run"
    stat.add_argument("--live", action="store_true", help=text)
    _add_filters(stat)


def _show(show: argparse.ArgumentParser) -> None:
    show.add_argument("files", metavar="FILE", nargs="+", help=_FILES)
    show.add_argument(
        "--format",
        choices=("trapline", "qemu", "json"),
        default="trapline",
        help="a line each, as --live prints it; a block as in the log of qemu -d int; or a line of JSON, as --json "
        "(default: trapline)",
    )
    _add_limit(show, "records", "all")
    _add_filters(show)


def _convert(convert: argparse.ArgumentParser) -> None:
    convert.add_argument("trace", metavar="IN", help="a trace, also of a run that was killed")
    convert.add_argument("output", metavar="OUT", help="its suffix is the format: .jsonl (-: to stdout), .parquet, ...")
    add_force(convert)
    _add_choice(convert)


def _diff(diff: argparse.ArgumentParser) -> None:
    diff.add_argument("files", metavar="FILE", nargs=2, help=f"A and B: each {_FILES}")
    diff.add_argument(
        "--by",
        choices=PLACES,
        default="place",
        help="what a place is: the instruction, or its function alone, for two builds of a guest (default: place)",
    )
    diff.add_argument(
        "--state", action="store_true", help="the registers must be equal, too: for guests without randomisation"
    )
    diff.add_argument("--summary", action="store_true", help="print one line")
    _add_filters(diff)
    page = diff.add_argument_group("a page")
    page.add_argument("--html", metavar="FILE", help="write the report of B with the difference, as report --html does")
    add_force(diff)
    add_symbols(diff)


def _query(query: argparse.ArgumentParser) -> None:
    query.add_argument("files", metavar="FILE", nargs="+", help=_FILES)
    query.add_argument(
        "sql", metavar="SELECT", help="over the table trace: 'select vector, count(*) from trace group by 1'"
    )
    _add_limit(query, "rows", "100; with --json all")
    _add_filters(query)


def _add_filters(command: argparse.ArgumentParser) -> None:
    group = _add_choice(command)
    group.add_argument("--last", metavar="N", type=_last, help="only the newest of all these, so many of each trace")
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_choice(command: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    group = command.add_argument_group("which exceptions")
    group.add_argument("-e", "--exceptions", metavar="SET", help="only these: pf,gp, all,!pf, 0x6040 (a mask)")
    group.add_argument(
        "--where", metavar="CONDITION", help="for which this holds, such as 'cpl == 0' (docs/conditions.md)"
    )
    group.add_argument("--function", metavar="NAME", help="in this function; a pattern of the shell, such as copy_*")
    group.add_argument("--process", metavar="CR3", help="of the address space with these page tables")
    group.add_argument("--from", dest="first", metavar="PLACE", help="from the record of this number on, or tsc:N")
    group.add_argument("--to", dest="until", metavar="PLACE", help="up to the record of this number, or tsc:N")
    return group


def _add_limit(command: argparse.ArgumentParser, what: str, default: str) -> None:
    command.add_argument("--limit", metavar="N", type=_limit, help=f"print at most so many {what} (default: {default})")


def _last(text: str) -> int:
    return integer(text, "--last", 1, _MANY)


def _limit(text: str) -> int:
    return integer(text, "--limit", 1, _MANY)


TRACE_VERBS: Final = (
    Verb("report", "where exceptions were raised, counted", _report),
    Verb("stat", "count exceptions by vector, with rates", _stat),
    Verb("show", "print the exceptions of traces one by one", _show),
    Verb("convert", "write a trace in another format", _convert),
    Verb(
        "diff",
        "compare the exceptions of two runs",
        _diff,
        {
            "description": "Compare the exceptions of two runs by vector, place and error code; time and address-space "
            "randomisation do not count. Exit code 0: they are the same; 1: they are different; 2: trouble."
        },
    ),
    Verb("query", "ask traces in SQL", _query),
)
"""The verbs that read traces, in the order of the help text."""
