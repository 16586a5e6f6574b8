"""`trapline`: the commands, and how errors are printed."""

import argparse
import errno
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from trapline.errors import TraplineError, UsageError
from trapline.trace.libraries import without_pandas
from trapline.typed import one_line, printable

from .parser import parser
from .qemu_names import check_place
from .terminal import PrintableFormatter, tell
from .termination import Termination, silence

FAILED: Final = 1
INTERRUPTED: Final = 130
_OF_WRITING: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EBADF})
_OF_TRACES: Final = {name: name for name in ("report", "query", "show", "convert", "diff")} | {"stat": "report"}
"""The modules of commands that read traces: each has a function of the command's name, which takes its options."""
_OF_GUESTS: Final = ("run", "record", "gdb")
_UNCOLLECTED: Final = 100_000
"""New objects between two collections of garbage. What is loaded at the start is none: Python's 700 cost 30 ms."""
_NO_MEMORY: Final = "trapline: there is not enough memory for this command"


def message(error: TraplineError) -> str:
    """Return the text with which the command line reports an error."""
    text = str(error.args[0])
    return f"trapline: {one_line(text) if isinstance(error, UsageError) else printable(text)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; every error is one line on stderr."""
    gc.set_threshold(_UNCOLLECTED)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the parent process closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open until the end
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    try:
        options = _parse(given[:split], qemu_options=split < len(given))
    except UsageError as error:
        tell(message(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    failed = UsageError.exit_code if options.verb == "diff" else FAILED  # 1 says that two traces are different
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("trapline: %(message)s"))
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, handlers=[handler])
    try:
        with without_pandas():
            status = _command(options, given[split + 1 :])
        sys.stdout.flush()
        gc.freeze()  # a garbage collection of all libraries at exit would take 20 ms
    except TraplineError as error:
        tell(message(error), file=sys.stderr)
        return failed if error.exit_code == FAILED else error.exit_code
    except MemoryError:
        tell(_NO_MEMORY, file=sys.stderr)
        return failed
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe may close it early
            tell(f"trapline: {_blamed(error)}", file=sys.stderr)
        silence()  # Python flushes both at exit: what they still buffer must not raise again
        return failed
    return status


def _blamed(error: OSError) -> str:
    """Return an error with the file that it is about: without a name it is stdout, which all commands write to."""
    return f"{error.filename or ('stdout' if error.errno in _OF_WRITING else 'the system')}: {error.strerror or error}"


def _parse(given: Sequence[str], *, qemu_options: bool) -> argparse.Namespace:
    if any(verb in given for verb in _OF_GUESTS):
        check_place(given)
    words = _with_run(given)
    options = parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
    if qemu_options and options.verb not in _OF_GUESTS:
        raise UsageError("only run, record and gdb take QEMU options after --")
    return options


def _with_run(given: Sequence[str]) -> list[str]:
    """Return the arguments with `stat --live ...` as `run --stat ...`, whose options it takes."""
    verb = next((place for place, argument in enumerate(given) if not argument.startswith("-")), len(given))
    if list(given[verb : verb + 1]) != ["stat"] or "--live" not in given[verb:]:
        return list(given)
    return [*given[:verb], "run", "--stat", *(each for each in given[verb + 1 :] if each != "--live")]


def _command(options: argparse.Namespace, qemu_options: list[str]) -> int:
    # Each command loads only what it needs: the libraries of `run` take longer to load than `vectors` takes to run.
    if options.verb == "vectors":
        from .vectors import vectors

        return vectors(as_json=options.json)
    if options.verb == "samples":
        from .samples import samples

        return samples(as_json=options.json)
    if options.verb == "import":
        from .imports import import_qemu_int

        return import_qemu_int(options.log, options.output, options.symbols, force=options.force)
    if options.verb == "explain":
        from trapline.session.clash import File, check_streams, symbol_files
        from trapline.session.symbols import placed_names

        from .explain import explain_file

        check_streams([File("the trace", options.file), *symbol_files(options.symbols)], ())
        names = placed_names(options.symbols)
        return explain_file(options.file, names, syntax=options.syntax, as_json=options.json)
    if options.verb in _OF_TRACES:
        module = import_module(f".{_OF_TRACES[options.verb]}", __package__)
        command: Callable[[argparse.Namespace], int] = getattr(module, options.verb)
        return command(options)
    if options.verb == "doctor":
        from .doctor import doctor

        return doctor(as_json=options.json, program=options.qemu)
    if options.verb == "mcp":
        from .mcp import mcp

        return mcp(options)
    with Termination() as termination:  # before its libraries are loaded, which takes longest
        try:
            return _of_guest(options, qemu_options, termination)
        except KeyboardInterrupt:
            return termination.exit_code


def _of_guest(options: argparse.Namespace, qemu_options: list[str], termination: Termination) -> int:
    if options.verb == "dap":
        from .dap import dap

        return dap(options)
    if options.verb == "record":
        from .record import record

        return record(options, qemu_options, termination)
    from .run import run

    return run(options, qemu_options, termination)


if __name__ == "__main__":
    sys.exit(main())
