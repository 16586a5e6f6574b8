"""Builds EFI programs from C, with symbols and DWARF, and a kernel that one of them loads, by gcc and GNU ld."""

import shutil
import subprocess
from pathlib import Path

_EVERYWHERE = (
    *("gcc", "-g", "-O1", "-ffreestanding", "-mno-red-zone", "-fno-stack-protector"),
    *("-fcf-protection=none", "-fno-asynchronous-unwind-tables"),
)
_COMPILE = (*_EVERYWHERE, "-fpie")
_COMPILE_KERNEL = (*_EVERYWHERE, "-fno-pic", "-mcmodel=kernel", "-mgeneral-regs-only")
_LINK_KERNEL = ("ld", "-N", "-z", "noexecstack", "--no-warn-rwx-segments", "-e", "start")
_LINK = ("ld", "-m", "i386pep", "--subsystem", "10", "-e", "efi_main")
BASE = 0x40_0000
"""The address it is linked at; firmware loads it elsewhere."""
HIGHER_HALF = 0xFFFF_FFFF_8000_0000


def missing_tools() -> list[str]:
    """Return the tools that are not on PATH."""
    return [tool for tool in ("gcc", "objcopy", "ld") if shutil.which(tool) is None]


def build(source: Path, program: Path, *options: str, stripped: bool = False) -> Path:
    """Write the program of a source; `options` are the compiler's."""
    code = program.with_suffix(".o")
    _run(
        source.parent,
        [*_COMPILE, *options, "-c", source.name, "-o", str(code)],
        ["objcopy", "-R", ".comment", "-R", ".note.gnu.property", str(code)],
        [*_LINK, "--image-base", hex(BASE), *(["-s"] if stripped else []), "-o", str(program), str(code)],
    )
    return program


def build_kernel(source: Path, kernel: Path) -> Path:
    """Write the 64-bit ELF file of a kernel, one segment that starts at the higher half."""
    code = kernel.with_suffix(".o")
    _run(
        source.parent,
        [*_COMPILE_KERNEL, "-c", source.name, "-o", str(code)],
        [*_LINK_KERNEL, "-Ttext", hex(HIGHER_HALF), "-o", str(kernel), str(code)],
    )
    return kernel


def _run(folder: Path, *commands: list[str]) -> None:
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
