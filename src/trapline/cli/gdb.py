"""`trapline run --gdb` and `trapline gdb`: a guest that gdb controls."""

import argparse
import contextlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from trapline.api import Machine
from trapline.debugger.gdb.console import Console
from trapline.debugger.gdb.endpoint import Endpoint, Listener, PipeConnection, parse_endpoint
from trapline.debugger.gdb.server import Server
from trapline.debugger.gdb.startup import startup_file
from trapline.debugger.gdb.stub import End
from trapline.debugger.target import Target
from trapline.errors import ProcessorError, TraplineError, UsageError
from trapline.report.run import Run
from trapline.session.output import LineWriter
from trapline.session.result import result
from trapline.session.settings import MachineOptions
from trapline.typed import shortened

from .foreground import Foreground, foreground
from .terminal import tell

_APART: Final = ("timeout", "fail_on", "expect", "stop", "keep_going", "live", "stat")
"""Options of run that a debugger has no use for."""


class Debugger(NamedTuple):
    """How gdb reaches the guest."""

    endpoint: Endpoint | None
    """Where it connects; None: it is started here."""
    program: str
    options: Sequence[str]
    catches: Sequence[str]


def wanted(options: argparse.Namespace) -> Debugger | None:
    """Return what the options say about gdb; None: nothing. Raises UsageError and ProcessorMissing."""
    started = options.verb == "gdb"
    given: str | None = None if started else options.gdb
    if not started and given is None:
        if options.catch:
            raise UsageError("--catch is for --gdb and for trapline gdb; --stop ends the run")
        return None
    for name in _APART:
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} cannot be given with gdb, which controls the guest")
    if given is not None:
        return Debugger(parse_endpoint(given), "", (), options.catch)
    program = shutil.which(options.gdb_program or "gdb")
    if program is None and options.gdb_program is not None:
        raise UsageError(f"--gdb-program {options.gdb_program}: no such program")
    if program is None:
        raise TraplineError("gdb is not installed (Debian: apt-get install gdb)")
    try:
        return Debugger(None, program, shlex.split(options.gdb_options), options.catch)
    except ValueError as error:  # a quotation without an end
        raise UsageError(f"--gdb-options {shortened(options.gdb_options)}: {error}") from error


def run_in_gdb(guest: str | None, keywords: MachineOptions, debugger: Debugger, exit_code: Callable[[Run], int]) -> Run:
    """Run a guest under gdb and return the result. `exit_code` says what gdb is told of it."""
    with contextlib.ExitStack() as stack:
        endpoint, started, console = debugger.endpoint, debugger.endpoint is None, None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trapline-")))
        if endpoint is None:
            endpoint = Endpoint(path=folder / "gdb")
            if keywords.get("console") is None:
                keywords["console"] = console = Console()
                stack.callback(console.close)
        listener = None if endpoint.stdio else Listener(endpoint)
        if listener is not None:
            stack.callback(listener.close)
        machine = stack.enter_context(Machine(guest, **keywords))
        target = Target(machine)
        for text in debugger.catches:
            target.catch(text)
        program = None
        if started:
            command = [debugger.program, "-q", "-x", str(startup_file(folder, machine, endpoint)), *debugger.options]
            program = stack.enter_context(foreground(command))
        elif listener is not None:
            _say(f"stopped at the first instruction; gdb can connect with: target remote {listener.endpoint}")
        ended: list[Run] = []

        def code() -> int:
            ended[:] = [machine.result()]
            return exit_code(ended[0])

        connection = PipeConnection() if listener is None else None
        server = Server(
            *(target, listener, connection),
            attached=not started,
            exit_code=code,
            say=_say,
            console=console,
            until=None if program is None else program.ended,
        )
        error = _run_out(server, target, listener, console, program)
        if error is not None:
            return result(machine.session, None, error)
        return ended[0] if ended else machine.result()


def _run_out(
    server: Server, target: Target, listener: Listener | None, console: Console | None, program: Foreground | None
) -> BaseException | None:
    """Serve, then let a guest that gdb has left run to its end; return what ended it otherwise."""
    rest = LineWriter(sys.stdout.buffer)
    try:
        end = server.serve()
        if listener is not None:
            listener.close()
        if console is not None:
            console.leave(rest)
        while end is End.DETACHED and not target.is_over:
            target.resume()
    except KeyboardInterrupt as interrupt:
        if program is not None:
            program.end()  # the signal was for this process alone: Ctrl-C is the program's
        return interrupt
    except ProcessorError as failure:
        return failure
    finally:
        rest.finish()
    return KeyboardInterrupt() if end is End.KILLED else None


def _say(line: str) -> None:
    tell(f"trapline: {line}", file=sys.stderr)
