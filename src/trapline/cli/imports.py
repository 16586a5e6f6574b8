"""`trapline import`: converts another program's log to the records that `run -o` writes."""

import sys
from collections.abc import Iterator
from pathlib import Path

from trapline.errors import UsageError
from trapline.report.counted import counted
from trapline.session.clash import File, check_clashes, check_streams, output_file, symbol_files
from trapline.session.convert import write_pieces
from trapline.session.output import OutputFile
from trapline.session.symbols import placed_names
from trapline.symbols import Names
from trapline.trace import qemu_log
from trapline.trace.files.json_rows import joined
from trapline.trace.files.jsonl import pieces_of
from trapline.trace.files.writer import LINES, format_of
from trapline.trace.stored import Metadata

from .streams import STDOUT, output_name
from .terminal import tell


def import_qemu_int(log: str, output: str | None, symbols: list[str], *, force: bool) -> int:
    """Write the exceptions of a log of `qemu -d int,cpu_reset` to a file, or to stdout."""
    name = output_name(output) or (STDOUT if output is None else "")
    inputs, outputs = [File("the log", log), *symbol_files(symbols)], [*output_file("-o", name)]
    check_clashes(inputs, outputs)
    check_streams(inputs, outputs)
    names = placed_names(symbols)
    form = format_of(name)
    file = OutputFile("-o", name, force=force)
    if form is LINES:
        count = _write_lines(_records(log, names), file)
    else:
        form.check()
        pieces = pieces_of(joined(_records(log, names)))
        count = write_pieces(pieces, Metadata(registers=False), file, form)
    tell(f"{counted(count, 'exception')} imported", file=sys.stderr)
    return 0


def _write_lines(lines: Iterator[str], file: OutputFile) -> int:
    count = 0
    with file.writing():
        for line in lines:
            if not count:
                written = file.open_text()
                file.begin()
            written.write(line)
            count += 1
        if not count:
            file.open()
            file.begin()
    return count


def _records(name: str, names: Names) -> Iterator[str]:
    """Yield the lines of the records. Raises UsageError, with the log's name, where it cannot be read."""
    try:
        with Path(name).open("rb") as log:
            yield from qemu_log.records(qemu_log.log_lines(log), names.lookup if names.files else None)
    except (OSError, ValueError) as error:  # a NUL in the name
        raise UsageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
