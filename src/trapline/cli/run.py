"""`trapline run`: from the user's words to a session, and from its result to an exit code."""

import argparse
import contextlib
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from trapline.arch.mask import ParsedMask, parse_mask
from trapline.arch.vectors import FORCEABLE
from trapline.errors import TraplineError, UsageError
from trapline.guests.image import Guest, open_guest
from trapline.guests.options import in_file, qemu_options

from . import table
from .extras import require

if TYPE_CHECKING:
    from trapline.session import Result, Settings

_FAILED: Final = 1
_SHUTDOWN: Final = 3
_GUEST_FAILED: Final = 4
_TIMEOUT: Final = 124
_INTERRUPTED: Final = 130

_UNITS: Final = {"": 20, "k": 10, "m": 20, "g": 30}


def run(options: argparse.Namespace, qemu_words: list[str]) -> int:
    """Run a guest and return the exit code that says how it ended."""
    require("qemu", "qemu.qmp")
    from trapline.session import run as run_session

    with contextlib.ExitStack() as stack:
        guest = None if options.guest is None else stack.enter_context(in_file(open_guest(options.guest)))
        settings = _settings(options, guest, qemu_words)
        lines = stack.enter_context(_output(options.output))
        live = _say if options.live else None
        meanwhile = None if settings.mask == 0 else _load_summary  # without exceptions there is no table
        result = run_session(settings, lines=lines, live=live, meanwhile=meanwhile)
        from .summary import print_json, print_summary

        code = exit_code(result, options.exit_code)
        if options.json:
            print_json(result, code, sys.stdout)
        else:
            print_summary(result, sys.stderr)
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
        Ending.SHUTDOWN: _SHUTDOWN,
        Ending.TIMEOUT: _TIMEOUT,
        Ending.INTERRUPTED: _INTERRUPTED,
    }.get(result.ending, _FAILED)


def parse_memory(text: str) -> int:
    """Return bytes for a size as QEMU takes it: a number of MiB, or with K, M or G."""
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"--memory {text}: not a size such as 64M or 2G")
    return int(match[1]) << _UNITS[match[2]]


def choose_mask(text: str | None) -> int | None:
    """Return the exceptions to force: what the user named, else the parameter where one is set, else all."""
    from trapline.hypervisor.parameters import force_intercept_exceptions_mask

    if text is None:
        return None if force_intercept_exceptions_mask.is_set() else FORCEABLE
    parsed: ParsedMask = parse_mask(text)
    for row in parsed.dropped:
        _say(f"trapline: {row.mnemonic} (vector {row.vector}) is not intercepted: {row.refused}")
    return parsed.mask


def _settings(options: argparse.Namespace, guest: Guest | None, qemu_words: list[str]) -> "Settings":
    from trapline.processors.qemu.kvm import nested_svm_missing
    from trapline.session import Settings

    if options.timeout is not None and not options.timeout > 0:  # NaN is not either
        raise UsageError(f"--timeout {options.timeout}: a time is more than 0 seconds")
    initrd = None if options.initrd is None else Path(options.initrd)
    if guest is None:
        if initrd is not None or options.append is not None:
            raise UsageError("--initrd and --append need a GUEST: a Linux or multiboot kernel")
        if not qemu_words:
            raise UsageError("nothing to run: name a GUEST, or give QEMU options after --")
        guest_options: list[str] = []
    else:
        guest_options = qemu_options(guest, initrd=initrd, append=options.append)
    accelerator = options.accel
    if accelerator == "auto":
        accelerator = "tcg" if nested_svm_missing() else "kvm"
    console = ["-serial", "stdio"]
    if options.console is not None:
        _check_writable(options.console, "--console")
        console = ["-chardev", f"file,id=trapline.console,path={_escaped(options.console)}"]
        console += ["-serial", "chardev:trapline.console"]
    return Settings(
        mask=choose_mask(options.exceptions),
        memory=parse_memory(options.memory),
        accelerator=accelerator,
        isolated=options.isolate,
        reboots=options.reboot,
        timeout=options.timeout,
        qemu=options.qemu,
        guest_options=guest_options,
        user_options=qemu_words,
        console=console,
        stdout=sys.stderr.fileno() if options.json else None,
    )


def _escaped(name: str) -> str:
    return str(Path(name).absolute()).replace(",", ",,")


def _check_writable(name: str, option: str) -> None:
    try:
        Path(name).open("wb").close()
    except OSError as error:
        raise UsageError(f"{option} {name}: {error.strerror}") from error


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
