"""Which QEMU will do."""

from typing import Final

from trapline.errors import LaunchError

OLDEST: Final = (7, 2)
"""The QEMU that everything was measured on; older ones walk nested tables wrongly."""


def check_version(version: tuple[int, int, int]) -> None:
    """Raise LaunchError for a QEMU that is too old."""
    if version[:2] < OLDEST:
        numbers = ".".join(map(str, version))
        raise LaunchError(f"this is QEMU {numbers}; trapline needs {OLDEST[0]}.{OLDEST[1]} or newer")
