"""`trapline`: the parser, the exit codes, and where words go."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trapline import __version__
from trapline.errors import TraplineError

SYNTAXES: Final = ("intel", "att")
PROCESSORS: Final = ("auto", "unicorn", "qemu")
"""Written out: what else has them takes long to load, and a test compares them."""
OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

_EPILOG: Final = """\
exit codes of run:
  0    the guest ended: power off, reset, or a debug exit with 0
  1    trapline failed
  2    usage or bad input
  3    the guest shut down (triple fault)
  4    the guest reported a failure through isa-debug-exit
  5    a rule of --fail-on or --expect was not kept
  124  the time was up
  130  interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser: the one source of the help text."""
    top = argparse.ArgumentParser(
        prog="trapline",
        description="Run an x86 guest with its CPU exceptions intercepted and forwarded as they were.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"trapline {__version__}")
    top.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    run = verbs.add_parser(
        "run",
        help="run a guest",
        description="Run a guest: a Linux bzImage, an ELF or multiboot kernel, a disk, floppy or\nISO image, a sample. "
        "Options after -- go to QEMU.",
        usage="trapline run [options] [GUEST] [-- QEMU OPTIONS]",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "guest",
        nargs="?",
        metavar="GUEST",
        help="a file, recognised by its content, or sample:NAME; none: what QEMU's options boot",
    )
    run.add_argument(
        "-e",
        "--exceptions",
        metavar="SET",
        help="which to force: all (default), none, pf,gp, all,!pf, 0x6040 (a mask), 14 (a vector)",
    )
    run.add_argument("--initrd", metavar="FILE", help="initial RAM disk, for a Linux kernel")
    run.add_argument("--append", metavar="TEXT", help="kernel command line")
    run.add_argument(
        "--processor",
        choices=PROCESSORS,
        default="auto",
        help="unicorn: in this process, for guests that need no PC; qemu: the rest (default: auto)",
    )
    run.add_argument(
        "--entry-mode",
        type=int,
        choices=(16, 32, 64),
        help="take GUEST as code without a header, entered in that mode",
    )
    run.add_argument(
        "--load-address",
        metavar="ADDRESS",
        type=_address,
        help="where such code is loaded and entered (default: 0x7c00 in 16-bit mode, else 1 MiB)",
    )
    run.add_argument("--memory", metavar="SIZE", default="256M", help="guest memory, such as 64M or 2G (default: 256M)")
    run.add_argument(
        "--accel",
        choices=("auto", "tcg", "kvm"),
        default="auto",
        help="who executes the guest (default: auto)",
    )
    run.add_argument("--isolate", action="store_true", help="protect trapline's monitor from a hostile guest; slower")
    run.add_argument("--reboot", action="store_true", help="a guest that resets its machine is started again")
    run.add_argument(
        "--fail-on",
        metavar="RULE",
        action="append",
        default=[],
        help="end the run with exit code 5 at an exception such as kernel:gp,ud@copy_* ([user:|kernel:|any:]"
        "VECTORS[@SYMBOL-PATTERN]); may be given more than once",
    )
    run.add_argument("--keep-going", action="store_true", help="let --fail-on tell at the end, not stop the guest")
    run.add_argument(
        "--expect",
        metavar="RULE[=COUNT]",
        action="append",
        default=[],
        help="exit code 5 unless such an exception came, or came COUNT times; may be given more than once",
    )
    run.add_argument("--timeout", metavar="SECONDS", type=float, help="stop the guest after that long")
    run.add_argument("-o", "--output", metavar="FILE", help="write a JSON object a line for each exception")
    run.add_argument("--live", action="store_true", help="print a line for each exception on stderr as it happens")
    run.add_argument("--json", action="store_true", help="print the summary as JSON; the console goes to stderr")
    run.add_argument("--console", metavar="FILE", help="write the guest's console to a file")
    run.add_argument(
        "--exit-code",
        choices=("trapline", "guest"),
        default="trapline",
        help="guest: after a debug exit, exit with QEMU's (value << 1) | 1",
    )
    _add_symbols(run)
    run.add_argument("--qemu", metavar="PROGRAM", help="the QEMU to use (default: qemu-system-x86_64 on PATH)")

    explain = verbs.add_parser(
        "explain", help="say why the exceptions of a stored run could not be delivered", allow_abbrev=False
    )
    explain.add_argument("file", metavar="FILE", help="what run -o wrote")
    explain.add_argument("--json", action="store_true", help="print JSON")
    _add_symbols(explain)

    take = verbs.add_parser("import", help="turn a log of another program into records", allow_abbrev=False)
    take.add_argument("format", choices=("qemu-int",), help="qemu-int: what qemu -d int,cpu_reset -D LOG wrote")
    take.add_argument("log", metavar="LOG", help="the file")
    take.add_argument("-o", "--output", metavar="FILE", help="where to write (default: stdout)")
    _add_symbols(take, syntax=False)

    vectors = verbs.add_parser("vectors", help="list the exception vectors and which may be forced", allow_abbrev=False)
    vectors.add_argument("--json", action="store_true", help="print JSON")

    samples = verbs.add_parser("samples", help="list the sample guests, run as sample:NAME", allow_abbrev=False)
    samples.add_argument("--json", action="store_true", help="print JSON")

    doctor = verbs.add_parser("doctor", help="say what this machine can do", allow_abbrev=False)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--qemu", metavar="PROGRAM", help="the QEMU to look at")
    return top


def _add_symbols(command: argparse.ArgumentParser, *, syntax: bool = True) -> None:
    command.add_argument(
        "--symbols",
        metavar="FILE[@SLIDE]",
        action="append",
        default=[],
        help="name addresses by an ELF file, a System.map or a kallsyms, SLIDE bytes above where it says; may be given "
        "more than once. run finds the slide of Linux by itself, and takes an ELF guest's own symbols",
    )
    if syntax:
        words = "of the instructions that are shown (default: intel)"
        command.add_argument("--syntax", choices=SYNTAXES, default="intel", help=words)


def _address(text: str) -> int:
    return int(text, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; every error is one line on stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: what we say goes nowhere
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # until we end
    words = list(sys.argv[1:] if arguments is None else arguments)
    split = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:split])
    logging.basicConfig(
        format="trapline: %(message)s",
        level=logging.INFO if options.verbose else logging.WARNING,
        stream=sys.stderr,
    )
    if split < len(words) and options.verb != "run":
        parser().error("only run takes QEMU options after --")
    try:
        status = _command(options, words[split + 1 :])
        sys.stdout.flush()
        gc.freeze()  # to search all libraries for garbage would take the exit 20 ms
    except TraplineError as error:
        print(f"trapline: {error.args[0]}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # then whoever read our output has enough
            print(f"trapline: {error}", file=sys.stderr)
        # Python must not complain once more at its end, about what stdout still holds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _command(options: argparse.Namespace, qemu_options: list[str]) -> int:
    # Each command loads only what it needs: the libraries behind `run` take longer than `vectors` in all.
    if options.verb == "vectors":
        from .vectors import vectors

        return vectors(as_json=options.json)
    if options.verb == "samples":
        from .samples import samples

        return samples(as_json=options.json)
    if options.verb == "import":
        from trapline.session.symbols import placed_names

        from .imports import import_qemu_int

        return import_qemu_int(options.log, options.output, placed_names(options.symbols))
    if options.verb == "explain":
        from trapline.session.symbols import placed_names

        from .explain import explain_file

        names = placed_names(options.symbols)
        return explain_file(options.file, names, syntax=options.syntax, as_json=options.json)
    if options.verb == "doctor":
        from .doctor import doctor

        return doctor(as_json=options.json, program=options.qemu)
    from .run import run

    return run(options, qemu_options)


if __name__ == "__main__":
    sys.exit(main())
