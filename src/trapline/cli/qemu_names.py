"""QEMU's options where trapline's are expected: what to do with them."""

from collections.abc import Sequence
from typing import Final

from trapline.errors import UsageError

_INSTEAD: Final = {
    "-m": "the guest's memory is set with --memory",
    "-accel": "the accelerator is chosen with --accel",
    "-enable-kvm": "the accelerator is chosen with --accel",
    "-smp": "the number of CPUs is set with --cpus",
    "-append": "the kernel's command line is set with --append",
    "-initrd": "the initial RAM disk is named with --initrd",
    "-kernel": "name the kernel as GUEST",
}
_AFTER: Final = frozenset(
    {
        *(
            "-bios",
            "-boot",
            "-cdrom",
            "-chardev",
            "-cpu",
            "-d",
            "-D",
            "-debugcon",
            "-device",
            "-display",
            "-drive",
            "-fda",
        ),
        *("-fdb", "-gdb", "-global", "-hda", "-hdb", "-hdc", "-hdd", "-icount", "-M", "-machine", "-monitor", "-net"),
        *("-netdev", "-nic", "-no-reboot", "-nodefaults", "-nographic", "-object", "-parallel", "-pflash", "-rtc"),
        *("-s", "-S", "-serial", "-usb", "-vga", "-vnc"),
    }
)


def check_place(arguments: Sequence[str]) -> None:
    """Raise UsageError for an option of QEMU among the arguments before `--`."""
    for argument in arguments:
        if argument in _INSTEAD:
            raise UsageError(f"{argument} is QEMU's: {_INSTEAD[argument]}")
        if argument in _AFTER:
            raise UsageError(f"{argument} is QEMU's: it goes after --, as in trapline run GUEST -- {argument}")
