"""`trapline diff`: what is different between two traces."""

import argparse
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from trapline.errors import UsageError
from trapline.report import difference
from trapline.report.counted import counted
from trapline.trace.diff import By, Difference, compare
from trapline.trace.reading import Reading
from trapline.typed import printable

from .progress import progress
from .streams import STDOUT, check_claims, output_name
from .table import print_table
from .terminal import tell
from .traces import described, opened

SAME: Final = 0
DIFFERENT: Final = 1
"""The exit codes, as diff(1) has them; 2 is trouble: see `main`."""


def diff(options: argparse.Namespace) -> int:
    """Print the difference of two traces; return whether there is one."""
    first, second = options.files
    for name in options.files:
        if name == "-" or (os.path.exists(name) and stat.S_ISFIFO(os.stat(name).st_mode)):  # noqa: PTH110, PTH116
            raise UsageError(f"{name}: diff reads a trace more than once: write it to a file first")
    by = By(options.by)
    with opened(options, [first]) as a, opened(options, [second]) as b:
        ordered = len(a.runs) == len(b.runs) == 1
        if not ordered and {run.name for run in a.runs} != {run.name for run in b.runs}:
            _tell_missing(a, b)
        finish = _page(options, a, b)
        with progress(None if a.count is None or b.count is None else a.count + b.count) as seen:
            a.watch(seen)
            b.watch(seen)
            found = compare(a, b, by=by, state=options.state, ordered=ordered)
        finish(found)
        _print(options, a, b, found)
    return SAME if found.same else DIFFERENT


def _print(options: argparse.Namespace, a: Reading, b: Reading, found: Difference) -> None:
    if options.json:
        names = [[run.name for run in each.runs] for each in (a, b)]
        json.dump({"traces": names, **difference.document(found)}, sys.stdout)
        print()
    elif options.summary:
        tell(difference.summary(found))
    else:
        for letter, each, count in zip("AB", (a, b), found.counts, strict=True):
            tell(f"{letter}: {described(each)}: {counted(count, 'exception')}")
        tell(*difference.text(found))
        if (table := difference.counts(found)) is not None:
            tell("\nexceptions with another count")
            print_table(table.heads, table.rows, right=table.right)
            if table.note is not None:
                tell(f"\n{table.note}")


def _page(options: argparse.Namespace, a: Reading, b: Reading) -> Callable[[Difference], None]:
    """Return what writes the page of `--html`. Raises UsageError for a file that is an input, too."""
    if options.html is None:
        return lambda _: None
    from trapline.report.html import Section

    from .report_html import page_file, write_page

    check_claims({"--html": output_name(options.html) == STDOUT, "diff": True})
    file = page_file(options, [*a.runs, *b.runs])
    title = f"Difference from {Path(a.runs[0].name).name}"

    def finish(found: Difference) -> None:
        write_page(
            options, b, file, [Section("difference", title, [printable(line) for line in difference.text(found)])]
        )

    return finish


def _tell_missing(a: Reading, b: Reading) -> None:
    first, second = ({run.name for run in each.runs} for each in (a, b))
    for side, names in (("first", sorted(first - second)), ("second", sorted(second - first))):
        if names:
            tell(f"only the {side} has {', '.join(names)}", file=sys.stderr)
