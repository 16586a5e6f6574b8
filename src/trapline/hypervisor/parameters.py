"""Process-wide parameters, like those of a kernel module: written at any time, read when a VM is created."""

import logging
import os
import threading
from collections.abc import Iterable
from typing import Final

from trapline.arch.vectors import FORCEABLE, VECTORS, bits
from trapline.errors import UsageError
from trapline.typed import read_integer, shortened

log = logging.getLogger(__name__)

ENVIRONMENT: Final = "TRAPLINE_FORCE_INTERCEPT_EXCEPTIONS_MASK"


class ExceptionMaskParameter:
    """A bit mask of exception vectors, bit 0 for #DE up to bit 31."""

    def __init__(self, environment: str) -> None:
        self._environment = environment
        self._value: int | None = None
        self._warned = 0
        self._lock = threading.Lock()

    def get(self) -> int:
        """Return the mask as it was written: by `set`, else by the environment, else 0."""
        if self._value is not None:
            return self._value
        text = os.environ.get(self._environment, "0")
        mask = read_integer(text)
        if mask is None:
            raise UsageError(f"{self._environment}={shortened(text)!r} is not a number such as 0x6040")
        return checked(mask)

    def is_set(self) -> bool:
        """Return whether it was written, by `set` or in the environment."""
        return self._value is not None or self._environment in os.environ

    def set(self, mask: int) -> None:
        """Write the mask. It does not change VMs that exist."""
        self._value = checked(mask)

    def clear(self) -> None:
        """Discard what `set` wrote: the environment is read again."""
        self._value = None

    def snapshot(self) -> int:
        """Return the vectors of the mask that may be forced; log a warning for each other one, once per process."""
        mask = self.get()
        with self._lock:
            new = mask & ~FORCEABLE & ~self._warned
            self._warned |= new
        warn_refused(bits(new))
        return mask & FORCEABLE


def warn_refused(vectors: Iterable[int]) -> None:
    """Log a warning for each of these vectors, which may not be forced."""
    for vector in vectors:
        row = VECTORS[vector]
        log.warning("%s (vector %d) is not intercepted: %s", row.mnemonic, vector, row.refused)


def checked(mask: int) -> int:
    """Return the mask. Raises UsageError for bits beyond the exception vectors."""
    if not 0 <= mask < 1 << len(VECTORS):
        raise UsageError(f"{mask:#x} is not a mask of {len(VECTORS)} exception vectors")
    return mask


force_intercept_exceptions_mask: Final = ExceptionMaskParameter(ENVIRONMENT)
"""The exceptions that a VM created from now on intercepts and forwards.

A mask with a bit for each vector, bit 0 for #DE. It is the default where `exceptions` is not given.
"""
