"""Which QEMU will do."""

from typing import Final

from trapline.arch.registers import EFER
from trapline.errors import LaunchError, ProcessorError

OLDEST: Final = (7, 2)
"""The QEMU that everything was measured on; older ones walk nested tables wrongly."""


def check_version(version: tuple[int, int, int]) -> None:
    """Raise LaunchError for a QEMU that is too old."""
    if version[:2] < OLDEST:
        numbers = ".".join(map(str, version))
        raise LaunchError(f"this is QEMU {numbers}; trapline needs {OLDEST[0]}.{OLDEST[1]} or newer")


def check_svm(efer: int) -> None:
    """Raise ProcessorError where the firmware could not set EFER.SVME."""
    if not efer & EFER.SVME:
        raise ProcessorError("this QEMU's CPU does not enable SVM; QEMU 7.2 is known to work")
