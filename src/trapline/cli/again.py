"""The command that runs a guest again in gdb, for the end of a summary."""

import argparse
import shlex
from collections.abc import Sequence
from typing import Final

_SINGLE: Final = {
    "processor": "auto",
    "entry_mode": None,
    "load_address": None,
    "media": None,
    "memory": "256M",
    "cpus": None,
    "schedule": None,
    "initrd": None,
    "append": None,
    "accel": "auto",
    "qemu": None,
}
"""Options with a value that say what the guest is, and their defaults, which are left out."""


def in_gdb(options: argparse.Namespace, qemu_options: Sequence[str]) -> str:
    """Return the command that runs the guest of `trapline run` in gdb, up to where it stops."""
    words = ["trapline", "gdb"]
    if options.guest is not None:
        words.append(options.guest)
    for name, default in _SINGLE.items():
        value = getattr(options, name)
        if value != default:
            shown = f"{value:#x}" if name == "load_address" else f"{value}"
            words += [f"--{name.replace('_', '-')}", shown]
    words += (f"--{name}" for name in ("isolate", "uefi") if getattr(options, name))
    for symbols in options.symbols or ():
        words += ["--symbols", symbols]
    after = f" {shlex.join(['--', *qemu_options])}" if qemu_options else ""
    return f"{shlex.join(words)} --gdb-options='-ex continue'{after}"
