"""The options of the command line: the one source of the help text."""

import argparse
from typing import Any, Final, NoReturn

from trapline import __version__
from trapline.errors import UsageError
from trapline.typed import integer

from .file_options import add_force, add_symbols
from .run_options import EPILOG, RUN_VERBS
from .trace_options import TRACE_VERBS
from .verb import Verb

_HIGHEST_PORT: Final = (1 << 16) - 1


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser. Its errors are UsageErrors.

    `only` is the verb that will be parsed: the others get no options, to add which would take 10 ms. None: any verb.
    """
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
    for verb in VERBS:
        whole = only is None or only == verb.name
        command = verbs.add_parser(verb.name, help=verb.summary, allow_abbrev=False, add_help=whole, **verb.settings)
        if whole:
            verb.add_options(command)
    return top


def _explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument("file", metavar="FILE", help="a file that `trapline run -o` wrote")
    _json(explain)
    add_symbols(explain)


def _import(take: argparse.ArgumentParser) -> None:
    take.add_argument("format", choices=("qemu-int",), help="qemu-int: the log of qemu -d int,cpu_reset -D LOG")
    take.add_argument("log", metavar="LOG", help="the file")
    take.add_argument("-o", "--output", metavar="FILE", help="write to a file (default: -, stdout)")
    add_force(take)
    add_symbols(take, syntax=False)


def _dap(dap: argparse.ArgumentParser) -> None:
    dap.add_argument(
        "--port", metavar="PORT", type=_port, help="serve on this port of 127.0.0.1 instead; 0: a free one"
    )


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _doctor(doctor: argparse.ArgumentParser) -> None:
    _json(doctor)
    doctor.add_argument("--qemu", metavar="PROGRAM", help="the QEMU program to check")


def _mcp(mcp: argparse.ArgumentParser) -> None:
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


VERBS: Final = (
    *RUN_VERBS,
    Verb("explain", "explain the double and triple faults of a stored run", _explain),
    Verb("import", "convert another program's log to records", _import),
    *TRACE_VERBS,
    Verb(
        "dap",
        "debug a guest in VS Code and other editors (Debug Adapter Protocol)",
        _dap,
        {
            "description": "Serve an editor on standard input and output, which starts this command itself: "
            "docs/vscode.md."
        },
    ),
    Verb("vectors", "list the exception vectors and which may be forced", _json),
    Verb("samples", "list the sample guests, run as sample:NAME", _json),
    Verb("doctor", "check what this machine can run", _doctor),
    Verb("mcp", "serve agents over stdin and stdout, by the Model Context Protocol", _mcp),
)
"""In the order of the help text."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which takes `--option=--` for an option with the value `--`."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:  # noqa: ANN401  # as argparse's
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:  # argparse would remove it
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:  # noqa: ANN401
        """Refuse what a verb does not know here: argparse would name the help of all verbs."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")
