"""QEMU's program and its BIOS: where they are on this machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from trapline.errors import LaunchError, ProcessorMissing, UsageError

PROGRAM: Final = "qemu-system-x86_64"
_BIOS_NAMES: Final = ("bios-256k.bin", "bios.bin")
_BIOS_FOLDERS: Final = (
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/local/share/qemu",
    "/usr/share/qemu-kvm",
    "/opt/homebrew/share/qemu",
)


def find_qemu(program: str | None = None) -> str:
    """Return the path of QEMU; raises ProcessorMissing, and UsageError for a named one that is not there."""
    found = shutil.which(PROGRAM if program is None else program)
    if found is not None:
        return found
    advice = "install it (Debian: apt install qemu-system-x86) or name it with --qemu"
    if program is not None:
        raise UsageError(f"{program}: no such program; {advice}")
    raise ProcessorMissing(f"{PROGRAM} is not on PATH; {advice}")


def qemu_version(program: str) -> tuple[int, int, int]:
    """Return QEMU's version; raises LaunchError when the program does not tell one."""
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{program} does not start: {error}") from error
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        raise LaunchError(f"{program} does not look like QEMU: it answered {output[:60]!r} to --version")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def bios_candidates(named: str | None = None) -> list[Path]:
    """Return where the BIOS image may be, in the order in which it is looked for."""
    if named is not None:
        return [Path(named), *(Path(folder, named) for folder in _BIOS_FOLDERS)]
    return [Path(folder, name) for name in _BIOS_NAMES for folder in _BIOS_FOLDERS]


def find_bios(named: str | None = None) -> Path:
    """Return the BIOS image; raises ProcessorMissing where there is none, UsageError for a named one."""
    for candidate in bios_candidates(named):
        if os.path.isfile(candidate):  # noqa: PTH113  # without an error for a name that is too long
            return candidate
    if named is not None:
        raise UsageError(f"-bios {named}: no such file")
    raise ProcessorMissing(
        "no BIOS image found; install SeaBIOS (Debian: apt install seabios) or name one with -- -bios FILE"
    )
