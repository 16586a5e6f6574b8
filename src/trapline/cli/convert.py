"""`trapline convert`: writes a trace in another format; what a killed run left becomes a whole file."""

import argparse
import sys

from trapline.report.counted import counted
from trapline.session.clash import File, check_clashes, check_streams, output_file
from trapline.session.convert import write_pieces
from trapline.session.output import OutputFile
from trapline.trace.files import open_trace
from trapline.trace.files.writer import PART, format_of

from .progress import progress
from .streams import output_name
from .terminal import tell
from .traces import choice_of


def convert(options: argparse.Namespace) -> int:
    """Write the trace of one file to another."""
    source = "/dev/stdin" if options.trace == "-" else options.trace
    name = output_name(options.output) or ""
    inputs, outputs = [File("the trace", source), File("the trace", source + PART)], [*output_file("the output", name)]
    check_clashes(inputs, outputs)
    check_streams(inputs, outputs)
    form, choice = format_of(name), choice_of(options)
    file = OutputFile("the output", name, force=options.force)
    with open_trace(source) as trace, progress(trace.count) as seen:
        # The progress is what was read: of chosen records those are counted that are looked at.
        where, written = (None, seen) if choice.is_all else (choice.watched(seen), lambda records: None)
        count = write_pieces(trace.pieces(where), trace.metadata, file, form, written)
    tell(f"{counted(count, 'exception')} converted", file=sys.stderr)
    return 0
