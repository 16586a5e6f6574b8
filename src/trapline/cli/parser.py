"""The options of the command line: the one source of the help text."""

import argparse
from typing import Any, Final, NoReturn

from trapline import __version__
from trapline.errors import UsageError
from trapline.typed import integer

from .file_options import add_force, add_symbols
from .run_options import EPILOG, add_run
from .trace_options import AddVerb, add_trace_verbs

_HIGHEST_PORT: Final = (1 << 16) - 1


def parser() -> argparse.ArgumentParser:
    """Return the parser. Its errors are UsageErrors."""
    top = _Parser(
        prog="trapline",
        description="Run an x86 guest with its CPU exceptions intercepted and forwarded as they were.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"trapline {__version__}")
    top.add_argument("-v", "--verbose", action="store_true", help="log more on stderr")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    add_run(verbs.add_parser, "run", "run a guest")
    add_run(verbs.add_parser, "record", "run a guest, and write its exceptions to a file that is named after it")
    add_run(verbs.add_parser, "gdb", "run a guest in gdb")
    _add_stored(verbs.add_parser)
    add_trace_verbs(verbs.add_parser)
    _add_debuggers(verbs.add_parser)
    _add_lists(verbs.add_parser)
    _add_servers(verbs.add_parser)
    return top


def _add_stored(add: AddVerb) -> None:
    explain = add("explain", help="explain the double and triple faults of a stored run", allow_abbrev=False)
    explain.add_argument("file", metavar="FILE", help="a file that `trapline run -o` wrote")
    explain.add_argument("--json", action="store_true", help="print JSON")
    add_symbols(explain)

    take = add("import", help="convert another program's log to records", allow_abbrev=False)
    take.add_argument("format", choices=("qemu-int",), help="qemu-int: the log of qemu -d int,cpu_reset -D LOG")
    take.add_argument("log", metavar="LOG", help="the file")
    take.add_argument("-o", "--output", metavar="FILE", help="write to a file (default: -, stdout)")
    add_force(take)
    add_symbols(take, syntax=False)


def _add_debuggers(add: AddVerb) -> None:
    dap = add(
        "dap",
        help="debug a guest in VS Code and other editors (Debug Adapter Protocol)",
        description="Serve an editor on standard input and output, which starts this command itself: docs/vscode.md.",
        allow_abbrev=False,
    )
    dap.add_argument(
        "--port", metavar="PORT", type=_port, help="serve on this port of 127.0.0.1 instead; 0: a free one"
    )


def _add_lists(add: AddVerb) -> None:
    vectors = add("vectors", help="list the exception vectors and which may be forced", allow_abbrev=False)
    vectors.add_argument("--json", action="store_true", help="print JSON")

    samples = add("samples", help="list the sample guests, run as sample:NAME", allow_abbrev=False)
    samples.add_argument("--json", action="store_true", help="print JSON")

    doctor = add("doctor", help="check what this machine can run", allow_abbrev=False)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--qemu", metavar="PROGRAM", help="the QEMU program to check")


def _add_servers(add: AddVerb) -> None:
    mcp = add("mcp", help="serve agents over stdin and stdout, by the Model Context Protocol", allow_abbrev=False)
    mcp.add_argument(
        "--allow",
        metavar="DIR",
        action="append",
        default=[],
        help="let clients name files below DIR, too, and not only below the working directory; may be given more than "
        "once",
    )
    text = "let clients give options to QEMU, which can name any file or program"
    mcp.add_argument("--allow-qemu-options", action="store_true", help=text)
    mcp.add_argument("--qemu", metavar="PROGRAM", help="the QEMU program (default: qemu-system-x86_64 on PATH)")


def _port(text: str) -> int:
    return integer(text, "--port", 0, _HIGHEST_PORT)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which takes `--option=--` for an option with the value `--`."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:  # noqa: ANN401  # as argparse's
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:  # argparse would remove it
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")
