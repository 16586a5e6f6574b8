"""`trapline report --html`: traces as one page."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from trapline.report.html import Section, page
from trapline.report.html.stored import page_of
from trapline.session.clash import File, check_clashes, output_file, symbol_files
from trapline.session.extras import require
from trapline.session.output import OutputFile
from trapline.session.symbols import placed_names
from trapline.trace.reading import Reading, Run

from .streams import STDOUT, output_name
from .terminal import tell
from .traces import reading


def report_html(options: argparse.Namespace) -> int:
    """Write the page of the chosen records to a file."""
    with reading(options) as records:
        write_page(options, records, page_file(options, records.runs))
    return 0


def page_file(options: argparse.Namespace, runs: Iterable[Run]) -> OutputFile:
    """Return the file of `--html`. Raises UsageError for one that is an input, too, and MissingExtra."""
    require("html", "jinja2")
    target = output_name(options.html) or STDOUT
    inputs = [*(File("the trace", run.path) for run in runs), *symbol_files(options.symbols)]
    check_clashes(inputs, output_file("--html", target))
    return OutputFile("--html", target, force=options.force)


def write_page(
    options: argparse.Namespace, records: Reading, file: OutputFile, sections: Sequence[Section] = ()
) -> None:
    """Write the page of the chosen records, with more sections. Raises UsageError and TraplineError."""
    names = placed_names(options.symbols)
    with file.writing():
        text = page(replace(page_of(records, names, syntax=options.syntax), sections=sections))
        written = file.open_text()
        file.begin()
        written.write(text)
    tell(f"{options.html}: {len(text.encode()):,} bytes", file=sys.stderr)
