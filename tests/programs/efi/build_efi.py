"""Builds an EFI program from C, with symbols and DWARF, by gcc and GNU ld."""

import shutil
import subprocess
from pathlib import Path

_COMPILE = (
    *("gcc", "-g", "-O1", "-ffreestanding", "-fpie", "-mno-red-zone", "-fno-stack-protector"),
    *("-fcf-protection=none", "-fno-asynchronous-unwind-tables"),
)
_LINK = ("ld", "-m", "i386pep", "--subsystem", "10", "-e", "efi_main")
BASE = 0x40_0000
"""The address it is linked at; firmware loads it elsewhere."""


def missing_tools() -> list[str]:
    """Return the tools that are not on PATH."""
    return [tool for tool in ("gcc", "objcopy", "ld") if shutil.which(tool) is None]


def build(source: Path, program: Path, *options: str, stripped: bool = False) -> Path:
    """Write the program of a source; `options` are the compiler's."""
    code = program.with_suffix(".o")
    for command in (
        [*_COMPILE, *options, "-c", source.name, "-o", str(code)],
        ["objcopy", "-R", ".comment", "-R", ".note.gnu.property", str(code)],
        [*_LINK, "--image-base", hex(BASE), *(["-s"] if stripped else []), "-o", str(program), str(code)],
    ):
        subprocess.run(command, cwd=source.parent, check=True, capture_output=True, text=True)
    return program
