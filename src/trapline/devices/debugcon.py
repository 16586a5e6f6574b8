"""The debug console of Bochs and QEMU: what is written to port 0xE9 goes out; a guest that reads 0xE9 there has one."""

from collections.abc import Callable
from typing import Final

PORT: Final = 0xE9


class DebugConsole:
    """QEMU's isa-debugcon at its usual port."""

    def __init__(self, output: Callable[[bytes], object]) -> None:
        self._output = output

    def read(self, port: int, size: int) -> int:
        """Answer the probe."""
        return PORT

    def write(self, port: int, size: int, value: int) -> None:
        """Put out one byte."""
        self._output(bytes((value,)))
