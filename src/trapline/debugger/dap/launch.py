"""From the arguments of `launch` to a machine."""

import os
from collections.abc import Callable
from typing import Any, Final

from trapline.api import Machine
from trapline.errors import UsageError
from trapline.processors.qemu.command import takes_stdio
from trapline.typed import integer

from .arguments import Launch

_SAMPLE: Final = "sample:"
_SAME: Final = (
    *(
        "exceptions",
        "processor",
        "memory",
        "cpus",
        "schedule",
        "entry_mode",
        "media",
        "uefi",
        "append",
        "accel",
        "isolate",
        "reboot",
        "qemu",
    ),
    *("qemu_options", "syntax", "where", "registers", "force"),
)
"""Arguments that are keywords of `Machine`."""
_FILES: Final = ("initrd", "output")
_KEPT: Final = 10_000
"""Exceptions that are kept, for the command `last`."""
_HIGHEST: Final = (1 << 64) - 1


def open_machine(launch: Launch, console: Callable[[bytes], object], *, stdio: bool) -> Machine:
    """Switch a machine on. `stdio`: this process's standard input and output are the client's.

    Raises UsageError, GuestImageError and ProcessorError.
    """
    if stdio and takes_stdio(launch.qemu_options):
        raise UsageError("qemuOptions: the editor has standard input and output, QEMU's devices cannot have them")
    keywords: dict[str, Any] = {name: value for name in _SAME if (value := getattr(launch, name)) is not None}
    keywords |= {name: in_directory(launch, file) for name in _FILES if (file := getattr(launch, name)) is not None}
    keywords["symbols"] = [in_directory(launch, file) for file in launch.symbols]
    if isinstance(launch.load_address, str):
        keywords["load_address"] = integer(launch.load_address, "loadAddress", 0, _HIGHEST)
    elif launch.load_address is not None:
        keywords["load_address"] = launch.load_address
    return Machine(guest_file(launch), console=console, keep=_KEPT, survive_crashes=True, **keywords)


def guest_file(launch: Launch) -> str | None:
    """Return the guest: a path, `sample:NAME`, or None where QEMU's options name it."""
    guest = launch.guest
    return guest if guest is None or guest.startswith(_SAMPLE) else in_directory(launch, guest)


def in_directory(launch: Launch, file: str) -> str:
    """Return the path of a file that the arguments name."""
    return os.path.join(launch.cwd or "", file)  # noqa: PTH118  # also of what is not a path: FILE@SLIDE


def source_roots(launch: Launch) -> list[str]:
    """Return the directories in which sources are looked for."""
    guest = guest_file(launch)
    beside = [] if guest is None or guest.startswith(_SAMPLE) else [os.path.dirname(guest)]  # noqa: PTH120
    return [*(in_directory(launch, root) for root in launch.source_roots), *beside, launch.cwd or ""]
