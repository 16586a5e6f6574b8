"""`trapline run`: from the user's words to a session, and from its result to an exit code."""

import argparse
import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from trapline.errors import TraplineError, UsageError
from trapline.guests.image import Guest, open_guest, raw_image
from trapline.guests.options import in_file

from . import table
from .choice import choose
from .console import open_console
from .extras import require
from .naming import open_names
from .settings import common_settings, qemu_settings

if TYPE_CHECKING:
    from trapline.session import Result

log = logging.getLogger(__name__)

_FAILED: Final = 1
_SHUTDOWN: Final = 3
_GUEST_FAILED: Final = 4
_TIMEOUT: Final = 124
_INTERRUPTED: Final = 130


def run(options: argparse.Namespace, qemu_words: list[str]) -> int:
    """Run a guest and return the exit code that says how it ended."""
    with contextlib.ExitStack() as stack:
        guest = _guest(options)
        names = open_names(options.symbols, guest)
        choice = choose(options, guest, qemu_words)
        if choice.boot is None:
            require("qemu", "qemu.qmp")
            guest = None if guest is None else stack.enter_context(in_file(guest))
        from trapline.session import run as run_session

        if choice.boot is None:
            settings = qemu_settings(options, guest, qemu_words)
        else:
            stream = sys.stderr if options.json else sys.stdout
            console = stack.enter_context(open_console(options.console, stream.buffer))
            settings = common_settings(options)._replace(boot=choice.boot, output=console.write)
        log.info("%s: %s", choice.processor, choice.why)
        lines = stack.enter_context(_output(options.output))
        live = _say if options.live else None
        meanwhile = None if settings.mask == 0 else _load_summary  # without exceptions there is no table
        result = run_session(settings, lines=lines, live=live, meanwhile=meanwhile, names=names, syntax=options.syntax)
        from .summary import print_json, print_summary

        code = exit_code(result, options.exit_code)
        if options.json:
            print_json(result, choice, code, names, options.syntax, sys.stdout)
        else:
            print_summary(result, choice, names, options.syntax, sys.stderr)
        if result.error is not None:
            _say(f"trapline: {result.error.args[0]}")
    return code


def exit_code(result: "Result", whose: str) -> int:
    """Return what the command exits with; `whose` is `trapline` or `guest`."""
    from trapline.session import Ending

    if result.ending is Ending.DEBUG_EXIT:
        status = result.exit_status or 0
        if whose == "guest":
            return status
        return 0 if status == 1 else _GUEST_FAILED
    return {
        Ending.OFF: 0,
        Ending.RESET: 0,
        Ending.HALTED: 0,
        Ending.SHUTDOWN: _SHUTDOWN,
        Ending.TIMEOUT: _TIMEOUT,
        Ending.INTERRUPTED: _INTERRUPTED,
    }.get(result.ending, _FAILED)


def _guest(options: argparse.Namespace) -> Guest | None:
    if options.guest is None:
        return None
    return open_guest(options.guest) if options.entry_mode is None else raw_image(Path(options.guest))


@contextlib.contextmanager
def _output(name: str | None) -> Iterator[IO[str] | None]:
    if name is None:
        yield None
        return
    try:
        file = Path(name).open("w", encoding="ascii")  # noqa: SIM115  # closed below, where its error has words
    except OSError as error:
        raise UsageError(f"-o {name}: {error.strerror}") from error
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise TraplineError(f"-o {name}: {error.strerror}; what was recorded before is kept") from error


def _load_summary() -> None:
    """Load what the summary needs while the guest runs."""
    importlib.import_module("trapline.cli.summary")
    table.load()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
