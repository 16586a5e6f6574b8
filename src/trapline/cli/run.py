"""`trapline run`: passes the options to `trapline.run`, and prints its result."""

import argparse
import contextlib
import importlib
import json
import logging
import sys
import threading
from typing import Final

from trapline.session.settings import MachineOptions

from . import table
from .console import open_console

log = logging.getLogger(__name__)

_IDLE_AFTER: Final = 0.4
"""Seconds after which a BIOS has mostly finished: until then the guest needs this CPU."""
_OPTIONS: Final = (
    *("exceptions", "processor", "memory", "entry_mode", "load_address", "initrd", "append", "isolate", "accel"),
    *("reboot", "qemu", "symbols", "syntax"),
)
"""Options of the command line that are keywords of the library."""


def run(options: argparse.Namespace, qemu_options: list[str]) -> int:
    """Run a guest, print its result and return the exit code."""
    from trapline.api import run as run_guest

    keywords: MachineOptions = {name: getattr(options, name) for name in _OPTIONS}  # type: ignore[assignment]
    with contextlib.ExitStack() as stack:
        stream = sys.stderr if options.json else sys.stdout
        console = stack.enter_context(open_console(options.console, stream.buffer))
        if options.exceptions != "none":  # without exceptions there is no table
            _load_summary_meanwhile()
        keywords["qemu_options"], keywords["console"] = qemu_options, console.write
        keywords["output"], keywords["live"] = options.output, _say if options.live else None
        keywords["keep"] = 0
        result = run_guest(
            options.guest,
            timeout=options.timeout,
            fail_on=options.fail_on,
            expect=options.expect,
            keep_going=options.keep_going,
            inherit=None if options.console else stream.buffer,
            **keywords,
        )
    code = result.exit_code
    if options.exit_code == "guest" and result.exit_status is not None:
        code = result.exit_status
    if options.json:
        json.dump({**result.to_json(), "exit_code": code}, sys.stdout)
        print()
    else:
        from .summary import print_summary

        print_summary(result, sys.stderr)
    if result.error is not None:
        _say(f"trapline: {result.error.args[0]}")
    return code


def _load_summary_meanwhile() -> None:
    """Load what the summary needs while the guest runs."""

    def load() -> None:
        importlib.import_module("trapline.cli.summary")
        table.load()

    timer = threading.Timer(_IDLE_AFTER, load)
    timer.daemon = True
    timer.start()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
