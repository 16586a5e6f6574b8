"""Options about files that several commands have."""

import argparse
from typing import Final

SYNTAXES: Final = ("intel", "att")
"""A copy of the disassembler's: that takes long to load. A test compares them."""


def add_symbols(command: argparse.ArgumentParser, *, syntax: bool = True) -> None:
    """Add `--symbols`, and `--syntax`."""
    command.add_argument(
        "--symbols",
        metavar="FILE[@SLIDE]",
        action="append",
        default=[],
        help="name addresses by the symbols of an ELF or PE file, a System.map or a kallsyms, moved by SLIDE bytes; "
        "may be given more than once. run finds the slide of a Linux kernel and of what UEFI loads, and uses a guest's "
        "own symbols",
    )
    if syntax:
        text = "the syntax of disassembled instructions (default: intel)"
        command.add_argument("--syntax", choices=SYNTAXES, default="intel", help=text)


def add_force(command: argparse.ArgumentParser) -> None:
    """Add `--force`."""
    text = "overwrite a file that exists and is not empty, once there is something to write"
    command.add_argument("-f", "--force", action="store_true", help=text)
