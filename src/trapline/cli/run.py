"""`trapline run`: passes the options to `trapline.run`, and prints its result."""

import argparse
import contextlib
import functools
import importlib
import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, Final

from trapline.session.settings import MachineOptions

from . import table
from .console import Console, open_console
from .terminal import tell
from .termination import Termination, silence

if TYPE_CHECKING:
    from trapline.report.run import Run

log = logging.getLogger(__name__)

_IDLE_AFTER: Final = 0.4
"""Seconds after which a BIOS has mostly finished: until then the guest needs this CPU."""
_OPTIONS: Final = (
    *("exceptions", "processor", "memory", "entry_mode", "load_address", "initrd", "append", "isolate", "accel"),
    *("reboot", "qemu", "symbols", "syntax", "where"),
)
"""Options of the command line that are keywords of the library."""


def run(options: argparse.Namespace, qemu_options: list[str]) -> int:
    """Run a guest, print its result and return the exit code."""
    with Termination() as termination:
        try:
            result = _run(options, qemu_options)
            code = _exit_code(options, result, termination)
            _print_result(options, result, code)
        except KeyboardInterrupt:
            return termination.exit_code
        except OSError:
            if not termination.came:
                raise
            silence()
            return termination.exit_code
    return code


def _run(options: argparse.Namespace, qemu_options: list[str]) -> "Run":
    from trapline.api import run as run_guest

    keywords: MachineOptions = {name: getattr(options, name) for name in _OPTIONS}  # type: ignore[assignment]
    with contextlib.ExitStack() as stack:
        stream = sys.stderr if options.json else sys.stdout
        console = stack.enter_context(open_console(options.console, stream.buffer))
        if options.exceptions != "none":  # without exceptions there is no table
            _load_summary_meanwhile()
        keywords["qemu_options"], keywords["console"] = qemu_options, console.write
        keywords["output"] = options.output
        keywords["live"] = functools.partial(_say_after, console) if options.live else None
        keywords["keep"] = 0
        return run_guest(
            options.guest,
            timeout=options.timeout,
            fail_on=options.fail_on,
            expect=options.expect,
            keep_going=options.keep_going,
            stop=options.stop,
            inherit=None if options.console else stream.buffer,
            **keywords,
        )


def _exit_code(options: argparse.Namespace, result: "Run", termination: Termination) -> int:
    from trapline.report.result import Ending

    if result.ending is Ending.INTERRUPTED:
        return termination.exit_code
    if options.exit_code == "guest" and result.exit_status is not None:
        return result.exit_status
    return result.exit_code


def _print_result(options: argparse.Namespace, result: "Run", code: int) -> None:
    if options.json:
        json.dump({**result.to_json(), "exit_code": code}, sys.stdout)
        print(flush=True)
    else:
        from .summary import print_summary

        print_summary(result, sys.stderr)
    if result.error is not None:
        _say(f"trapline: {result.error.args[0]}")


def _load_summary_meanwhile() -> None:
    """Load what the summary needs while the guest runs."""

    def load() -> None:
        importlib.import_module("trapline.cli.summary")
        table.load()

    timer = threading.Timer(_IDLE_AFTER, load)
    timer.daemon = True
    timer.start()


def _say_after(console: Console, line: str) -> None:
    """Print a line after what the guest wrote before."""
    console.flush()
    _say(line)


def _say(line: str) -> None:
    tell(line, file=sys.stderr)
