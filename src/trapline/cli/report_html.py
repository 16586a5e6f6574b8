"""`trapline report --html`: traces as one page."""

import argparse
import sys

from trapline.errors import TraplineError
from trapline.report.html import page
from trapline.report.html.stored import page_of
from trapline.session.clash import File, check_clashes, output_file, symbol_files
from trapline.session.output import OutputFile
from trapline.session.symbols import placed_names

from .streams import STDOUT, output_name
from .terminal import tell
from .traces import reading


def report_html(options: argparse.Namespace) -> int:
    """Write the page of the chosen records to a file."""
    target = output_name(options.html) or STDOUT
    names = placed_names(options.symbols)
    with reading(options) as records:
        inputs = [*(File("the trace", run.path) for run in records.runs), *symbol_files(options.symbols)]
        check_clashes(inputs, output_file("--html", target))
        file = OutputFile("--html", target, force=options.force)
        try:
            text = page(page_of(records, names, syntax=options.syntax))
            written = file.open_text()
            file.begin()
            written.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TraplineError(f"{file}: {error.strerror}") from error
        finally:
            file.close()
    tell(f"{options.html}: {len(text.encode()):,} bytes", file=sys.stderr)
    return 0
