"""`trapline run`: passes the options to `trapline.run`, and prints its result."""

import argparse
import contextlib
import functools
import importlib
import json
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from trapline.errors import UsageError
from trapline.session.clash import check_streams, input_files, output_file
from trapline.session.outputs import record_files
from trapline.session.settings import MachineOptions, read_options
from trapline.trace.tally import Tally

from . import table
from .live import LiveLines
from .live_counts import LiveCounts
from .streams import STDOUT, check_claims, output_name
from .terminal import tell
from .termination import Termination, silence

if TYPE_CHECKING:
    from trapline.report.run import Run
    from trapline.session.output import LineWriter

    from .gdb import Debugger

log = logging.getLogger(__name__)

_IDLE_AFTER: Final = 0.4
"""Seconds after which a BIOS has mostly finished: until then the guest needs this CPU."""
_OPTIONS: Final = (
    *(
        "exceptions",
        "processor",
        "memory",
        "cpus",
        "schedule",
        "entry_mode",
        "load_address",
        "media",
        "initrd",
        "append",
        "uefi",
        "isolate",
        "accel",
    ),
    *("reboot", "qemu", "symbols", "syntax", "where", "force"),
)
"""Options of the command line that are keywords of the library."""


def run(options: argparse.Namespace, qemu_options: list[str], termination: Termination) -> int:
    """Run a guest, print its result and return the exit code."""
    try:
        result = _run(options, qemu_options, termination)
        code = _exit_code(options, result, termination)
        _print_result(options, qemu_options, result, code)
    except KeyboardInterrupt:
        return termination.exit_code
    except OSError:
        if not termination.came:
            raise
        silence()
        return termination.exit_code
    return code


def _run(options: argparse.Namespace, qemu_options: list[str], termination: Termination) -> "Run":
    from trapline.api import run as run_guest
    from trapline.session.output import LineWriter
    from trapline.session.patient_file import patient

    keywords: MachineOptions = {name: getattr(options, name) for name in _OPTIONS}  # type: ignore[assignment]
    keywords["qemu_options"] = qemu_options
    output, console_file = output_name(options.output), output_name(options.console)
    if options.stat and options.live:
        raise UsageError("--stat and --live both write to the terminal: give one of them")
    debugger = _debugger(options)
    in_terminal = debugger is not None and debugger.endpoint is None and options.console is None
    stdio = debugger is not None and debugger.endpoint is not None and debugger.endpoint.stdio
    claims = {"--json": options.json, "-o": output == STDOUT, "--console": console_file == STDOUT}
    check_claims({**claims, "--gdb stdio": stdio})
    console_file = None if console_file == STDOUT else console_file
    check_streams(
        input_files(read_options(options.guest, keywords)[0]),
        [*record_files(output), *output_file("--console", console_file)],
    )
    with contextlib.ExitStack() as stack:
        stream = sys.stderr if options.json or output == STDOUT or stdio else sys.stdout
        if options.stat and options.console is None and stream.isatty():
            console_file = os.devnull
        console = LineWriter(patient(stream.buffer))
        stack.callback(console.finish)
        if options.exceptions != "none" and not options.json:  # otherwise there is no table
            _load_summary_meanwhile()
        keywords["output"], keywords["console"] = output, console if console_file is None else console_file
        live = LiveLines(functools.partial(_say_after, console))
        stack.callback(live.finish)
        keywords["live"] = live.take if options.live else None
        keywords["keep"], keywords["survive_crashes"], keywords["registers"] = 0, True, not options.no_registers
        keywords["tally"] = tally = Tally()
        if options.stat:
            stack.enter_context(LiveCounts(tally))
        if debugger is not None:
            from .gdb import run_in_gdb

            del keywords["keep"]
            if in_terminal:
                del keywords["console"]
            return run_in_gdb(options.guest, keywords, debugger, lambda run: _exit_code(options, run, termination))
        return run_guest(
            options.guest,
            timeout=options.timeout,
            fail_on=options.fail_on,
            expect=options.expect,
            keep_going=options.keep_going,
            stop=options.stop,
            inherit=stream.buffer if console_file is None else None,
            **keywords,
        )


def _debugger(options: argparse.Namespace) -> "Debugger | None":
    if options.verb != "gdb" and options.gdb is None and not options.catch:
        return None
    from .gdb import wanted

    return wanted(options)


def _exit_code(options: argparse.Namespace, result: "Run", termination: Termination) -> int:
    from trapline.report.result import Ending

    if result.ending is Ending.INTERRUPTED:
        return termination.exit_code
    if options.exit_code == "guest" and result.exit_status is not None:
        return result.exit_status
    return result.exit_code


def _print_result(options: argparse.Namespace, qemu_options: list[str], result: "Run", code: int) -> None:
    if options.json:
        json.dump({**result.to_json(), "exit_code": code}, sys.stdout)
        print(flush=True)
    else:
        from trapline.report.result import Ending

        from .again import in_gdb
        from .summary import print_summary

        print_summary(result, sys.stderr, screen=options.screen)
        if result.ending is Ending.SHUTDOWN and getattr(options, "gdb", ...) is None:
            _say(f"to stop there in gdb: {in_gdb(options, qemu_options)}")
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


def _say_after(console: "LineWriter", line: str) -> None:
    """Print a line after what the guest wrote before."""
    console.flush()
    _say(line)


def _say(line: str) -> None:
    tell(line, file=sys.stderr)
