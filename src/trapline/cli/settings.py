"""From the words of a command line to the settings of a session."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trapline.arch.mask import ParsedMask, parse_mask
from trapline.arch.vectors import FORCEABLE
from trapline.errors import UsageError
from trapline.guests.image import Guest
from trapline.guests.options import qemu_options

if TYPE_CHECKING:
    from trapline.session import Settings

_UNITS: Final = {"": 20, "k": 10, "m": 20, "g": 30}


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
        print(f"trapline: {row.mnemonic} (vector {row.vector}) is not intercepted: {row.refused}", file=sys.stderr)
    return parsed.mask


def common_settings(options: argparse.Namespace) -> "Settings":
    """Return what both processors need."""
    from trapline.session import Settings

    if options.timeout is not None and not options.timeout > 0:  # NaN is not either
        raise UsageError(f"--timeout {options.timeout}: a time is more than 0 seconds")
    return Settings(
        mask=choose_mask(options.exceptions),
        memory=parse_memory(options.memory),
        reboots=options.reboot,
        timeout=options.timeout,
    )


def qemu_settings(options: argparse.Namespace, guest: Guest | None, qemu_words: list[str]) -> "Settings":
    """Return the same with what QEMU needs."""
    from trapline.processors.qemu.kvm import nested_svm_missing

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
    return common_settings(options)._replace(
        accelerator=accelerator,
        isolated=options.isolate,
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
