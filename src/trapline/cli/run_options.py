"""The options of `trapline run`, `record` and `gdb`."""

import argparse
from typing import Final

from trapline.arch.topology import MOST_CPUS
from trapline.errors import UsageError
from trapline.typed import integer, shortened

from .file_options import add_force, add_symbols
from .verb import Verb

PROCESSORS: Final = ("auto", "unicorn", "qemu")
"""A copy of `session.settings.PROCESSORS`: that takes long to load. A test compares them."""
MEDIA: Final = ("floppy", "disk", "cdrom")
"""A copy of `guests.guest.MEDIA`, for the same reason."""
_HIGHEST_ADDRESS: Final = (1 << 64) - 1

EPILOG: Final = """\
exit codes (docs/exit-codes.md):
  0    the guest ended: power off, reset, or a debug exit with 0; or --stop ended it
  1    trapline failed, or this machine lacks something: QEMU, a library, room on a disk; of diff: a difference
  2    the command line cannot be used, or a file that it names
  3    the guest shut down (triple fault)
  4    the guest reported a failure through isa-debug-exit
  5    a --fail-on or --expect rule was violated
  124  --timeout expired
  129  SIGHUP ended it, with its summary
  130  Ctrl-C, the same
  143  SIGTERM, the same
"""


def _verb(name: str, summary: str) -> Verb:
    return Verb(
        name,
        summary,
        lambda run: _add_run(run, name),
        {
            "description": "Run a guest: a Linux bzImage, an ELF or multiboot kernel, a disk, floppy or\nISO image, a "
            "sample. Options after -- go to QEMU.",
            "usage": f"trapline {name} [options] [GUEST] [-- QEMU OPTIONS]",
            "epilog": EPILOG,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        },
    )


RUN_VERBS: Final = (
    _verb("run", "run a guest"),
    _verb("record", "run a guest, and write its exceptions to a file that is named after it"),
    _verb("gdb", "run a guest in gdb"),
)
"""The verbs that run a guest."""


def _add_run(run: argparse.ArgumentParser, verb: str) -> None:
    run.add_argument(
        "guest",
        nargs="?",
        metavar="GUEST",
        help="a file, recognised by its content, or sample:NAME; leave it out to boot what the QEMU OPTIONS name",
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
        type=_mode,
        choices=(16, 32, 64),
        help="GUEST is raw code without a header, entered in this mode",
    )
    run.add_argument(
        "--load-address",
        metavar="ADDRESS",
        type=_address,
        help="where raw code is loaded and entered (default: 0x7c00 in 16-bit mode, else 1 MiB)",
    )
    run.add_argument(
        "--media",
        choices=MEDIA,
        help="of an image that a BIOS boots: what it is an image of (default: as its size and boot sector say)",
    )
    text = "boot by UEFI firmware, such as OVMF; done anyway for EFI programs and images that no BIOS boots"
    run.add_argument("--uefi", action="store_true", help=text)
    run.add_argument("--memory", metavar="SIZE", default="256M", help="guest memory, such as 64M or 2G (default: 256M)")
    run.add_argument("--cpus", metavar="N", type=_cpus, help="how many CPUs the guest has, 1 to 8 (default: 1)")
    run.add_argument(
        "--schedule",
        metavar="SEED",
        type=_seed,
        help="in this process, let CPUs take turns of so many instructions as SEED has it, and time go by them: the "
        "same run each time",
    )
    run.add_argument(
        "--accel",
        choices=("auto", "tcg", "kvm"),
        default="auto",
        help="QEMU's accelerator (default: auto)",
    )
    run.add_argument("--isolate", action="store_true", help="protect trapline's monitor from a hostile guest; slower")
    run.add_argument("--reboot", action="store_true", help="restart a guest that resets its machine")
    run.add_argument(
        "--fail-on",
        metavar="RULE",
        action="append",
        default=[],
        help="end the run with exit code 5 at an exception that RULE names, such as kernel:gp,ud@copy_* "
        "([user:|kernel:|any:]VECTORS[@SYMBOL-PATTERN]); may be given more than once",
    )
    run.add_argument("--keep-going", action="store_true", help="report --fail-on at the end, do not stop the guest")
    run.add_argument(
        "--expect",
        metavar="RULE[=COUNT]",
        action="append",
        default=[],
        help="end with exit code 5 unless such an exception was raised, or was raised COUNT times; may be given more "
        "than once",
    )
    run.add_argument(
        "--stop",
        metavar="STOP",
        action="append",
        default=[],
        help="end the run at such an exception, before it is delivered, and explain it: [VECTORS] [if CONDITION], such "
        "as 'pf,gp if cpl == 0 and rip < 0x1000' (docs/conditions.md); may be given more than once",
    )
    run.add_argument("--timeout", metavar="SECONDS", type=_seconds, help="stop the guest after this time")
    run.add_argument(
        "--where",
        metavar="CONDITION",
        help="record only exceptions for which this holds, such as 'cpl == 0 and vector == pf' (docs/conditions.md); "
        "all that are forced are intercepted",
    )
    run.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write each exception to FILE: as a line of JSON (-: to stdout), or as the suffix says .jsonl.zst, .arrow "
        "or .parquet (docs/trace-format.md)",
    )
    run.add_argument("--no-registers", action="store_true", help="leave the general registers out of that file")
    add_force(run)
    run.add_argument(
        "--screen",
        action="store_true",
        help="print the last VGA text screen; done anyway if the console stays empty",
    )
    run.add_argument(
        "--live",
        action="store_true",
        help="print a line for each exception on stderr as it happens; repeats are folded",
    )
    text = "show on a terminal how often each was recorded so far, redrawn in place; without the guest's console"
    run.add_argument("--stat", action="store_true", help=text)
    run.add_argument("--json", action="store_true", help="print the summary as JSON; the console goes to stderr")
    run.add_argument("--console", metavar="FILE", help="write the guest's console to a file (default: -, stdout)")
    run.add_argument(
        "--exit-code",
        choices=("trapline", "guest"),
        default="trapline",
        help="guest: after a debug exit, exit with QEMU's (value << 1) | 1",
    )
    _add_debugger(run, verb)
    add_symbols(run)
    run.add_argument("--qemu", metavar="PROGRAM", help="the QEMU program (default: qemu-system-x86_64 on PATH)")


def _add_debugger(run: argparse.ArgumentParser, verb: str) -> None:
    if verb == "gdb":
        run.add_argument("--gdb-program", metavar="PROGRAM", help="the gdb to start (default: gdb on PATH)")
        run.add_argument(
            "--gdb-options",
            metavar="OPTIONS",
            default="",
            help="options of gdb, such as --gdb-options='-x FILE'",
        )
    else:
        run.add_argument(
            "--gdb",
            metavar="WHERE",
            help="stop at the first instruction, and wait for gdb at [HOST:]PORT (of this machine, if HOST is left "
            "out), unix:PATH or stdio (docs/gdb.md)",
        )
    run.add_argument(
        "--catch",
        metavar="STOP",
        action="append",
        default=[],
        help="in gdb: stop at such exceptions before they are delivered, given as for --stop; may be given more than "
        "once",
    )


def _address(text: str) -> int:
    return integer(text, "--load-address", 0, _HIGHEST_ADDRESS)


def _cpus(text: str) -> int:
    return integer(text, "--cpus", 1, MOST_CPUS)


def _seed(text: str) -> int:
    return integer(text, "--schedule", 0, _HIGHEST_ADDRESS)


def _mode(text: str) -> int:
    return integer(text, "--entry-mode", 16, 64)


def _seconds(text: str) -> float:
    try:
        if text.isascii():
            return float(text)
    except ValueError:
        pass
    raise UsageError(f"--timeout {shortened(text)}: not a number of seconds, such as 0.5 or 60")
