"""The guest's RAM inside the QEMU process, by its offset there.

QEMU allocates the RAM as it always does. Sharing it through a file would cost a guest some 10 %, because such memory
gets no huge pages; reading it from outside costs a system call, and is rare.
"""

import os
import re
from pathlib import Path
from typing import Final

from trapline.errors import FaultError, ProcessorError

_GONE: Final = "QEMU has ended, and its memory with it"
"""Of a process that has none any more Linux reads and writes no bytes."""


class ProcessMemory:
    """A block of a process's anonymous memory, sliced like bytes. Implements what `Ram` needs."""

    def __init__(self, pid: int, size: int) -> None:
        self._pid = pid
        self._size = size
        self._base = 0
        self._file = -1

    def locate(self, offset: int, token: bytes) -> None:
        """Find the block that holds `token` at `offset`; raises ProcessorError when it cannot be found or read."""
        try:
            maps = Path(f"/proc/{self._pid}/maps").read_text(encoding="utf-8")
            self._file = os.open(f"/proc/{self._pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise ProcessorError(
                f"QEMU's memory cannot be read ({error.strerror}); trapline needs the right to trace its own children"
            ) from error
        for match in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0\b", maps, re.MULTILINE):
            start, end = int(match[1], 16), int(match[2], 16)
            if end - start == self._size and self._holds(start + offset, token):
                self._base = start
                return
        raise ProcessorError("the guest's memory was not found in QEMU")

    def close(self) -> None:
        """Close the memory. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        try:
            data = os.pread(self._file, stop - start, self._base + start)
        except OSError as error:
            raise FaultError(start, f"QEMU's memory cannot be read: {error.strerror}") from error
        if len(data) < stop - start:
            raise FaultError(start, _GONE)
        return data

    def __setitem__(self, part: slice, data: bytes) -> None:
        start, _, _ = part.indices(self._size)
        try:
            written = os.pwrite(self._file, data, self._base + start)
        except OSError as error:
            raise FaultError(start, f"QEMU's memory cannot be written: {error.strerror}") from error
        if written < len(data):
            raise FaultError(start, _GONE)

    def _holds(self, address: int, token: bytes) -> bool:
        try:
            return os.pread(self._file, len(token), address) == token
        except OSError:
            return False
