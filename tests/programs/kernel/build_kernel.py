#!/usr/bin/env python3
"""Builds the small kernel of the acceptance tests with gcc and binutils.

As a program: ``build_kernel.py DIR`` makes ``DIR/kernel.elf``, 64-bit with symbols and DWARF, and ``DIR/kernel``, the
same as a 32-bit ELF file as multiboot loaders take it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
TOOLS: Final = ("gcc", "ld", "objcopy")
ASSEMBLY: Final = ("boot", "traps")
KERNEL: Final = ("main", "console", "memory", "traps", "tasks", "selftest")

_EVERYWHERE: Final = (
    *("-std=gnu11", "-O2", "-g", "-m64", "-march=x86-64", "-ffreestanding", "-fno-pic", "-fcf-protection=none"),
    *(
        "-fno-strict-aliasing",
        "-fno-stack-protector",
        "-fno-asynchronous-unwind-tables",
        "-fno-tree-loop-distribute-patterns",
    ),
    *("-Wall", "-Wextra", "-Werror"),
)
_RING0: Final = ("-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only")


class BuildError(Exception):
    """The kernel could not be built; the text says why."""


class Kernel(NamedTuple):
    """The two files of a kernel."""

    image: Path
    """32-bit ELF with a multiboot 1 header, without symbols."""
    symbols: Path
    """64-bit ELF with symbols and DWARF; code runs at the addresses it has there."""


def missing_tools() -> list[str]:
    """Return the programs that a build needs and that are not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def build(folder: Path, **defines: int) -> Kernel:
    """Build the kernel into the folder, or return what an earlier call left there.

    ``WATCHPOINT=0`` leaves out what not every processor can: breakpoints on data. ``RF=0`` drops RF.
    ``CRASH=1`` makes it end in a triple fault. ``SMP=1`` has it start a second CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kernel = Kernel(folder / "kernel", folder / "kernel.elf")
    if kernel.image.exists():
        return kernel
    if missing := missing_tools():
        raise BuildError(f"{missing[0]} is not installed (Debian: apt-get install gcc binutils)")
    assembly, sources = (ASSEMBLY, KERNEL) if not defines.get("SMP") else ((*ASSEMBLY, "smp"), (*KERNEL, "smp"))
    objects = [_compile(f"{name}.S", folder / f"{name}-entry.o", ()) for name in assembly]
    options = (*_RING0, *(f"-D{name}={value}" for name, value in defines.items()))
    objects += [_compile(f"{name}.c", folder / f"{name}.o", options) for name in sources]
    objects.append(_compile("user.c", folder / "user.o", ()))
    _run("ld", "-n", "-z", "noexecstack", "--no-warn-rwx-segments", "-T", "kernel.lds", "-o", kernel.symbols, *objects)
    _run("objcopy", "--strip-all", "-O", "elf32-i386", kernel.symbols, kernel.image)
    return kernel


def _compile(source: str, target: Path, options: tuple[str, ...]) -> Path:
    _run("gcc", *_EVERYWHERE, *options, "-c", source, "-o", target)
    return target


def _run(*command: str | Path) -> None:
    # In the sources' own folder, so that DWARF names them and nothing of where the result goes.
    done = subprocess.run(list(map(str, command)), cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{command[0]} refuses the kernel:\n{done.stderr.rstrip()}")


def main(arguments: list[str]) -> int:
    """Build the kernel into the folder that is named."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(*build(Path(arguments[0]).resolve()), sep="\n")
    except BuildError as error:
        print(f"build_kernel.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
