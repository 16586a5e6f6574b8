"""`trapline import`: converts another program's log to the records that `run -o` writes."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trapline.errors import TraplineError, UsageError
from trapline.symbols import Names
from trapline.trace import qemu_log

from .terminal import tell


def import_qemu_int(name: str, output: str | None, names: Names) -> int:
    """Write the exceptions of a log of `qemu -d int,cpu_reset` to a file, or to stdout."""
    try:
        with Path(name).open(encoding="ascii", errors="replace") as log, _opened(output) as file:
            lookup = names.lookup if names.files else None
            count = 0
            for line in qemu_log.records(log, lookup):
                file.write(line)
                count += 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UsageError(f"{name}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    tell(f"{count:,} exception{'s' * (count != 1)} imported", file=sys.stderr)
    return 0


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    try:
        with Path(output).open("w", encoding="ascii") as file:
            yield file
    except OSError as error:
        raise TraplineError(f"-o {output}: {error.strerror}") from error
