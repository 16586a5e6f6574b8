"""QEMU's firmware configuration by its two ports, as far as bare guests read it (QEMU docs/specs/fw_cfg).

A word written to the selector chooses an item, bytes read from the next port are its contents; after its end, and of
an item that does not exist, it reads as zero. There is no DMA interface and no file.
"""

from typing import Final

SELECTOR: Final = 0x510
DATA: Final = 0x511


class FwCfg:
    """Items by key, and where the guest reads."""

    def __init__(self, memory: int, cpus: int) -> None:
        """Describe a machine with `memory` bytes and `cpus` processors."""
        self._items = {
            0x00: b"QEMU",
            0x01: (1).to_bytes(4, "little"),  # the traditional interface; bit 1 would be DMA
            0x03: memory.to_bytes(8, "little"),
            0x05: cpus.to_bytes(2, "little"),
            0x0F: cpus.to_bytes(2, "little"),
            0x19: (0).to_bytes(4, "big"),  # the file directory: how many files
        }
        self.reset()

    def reset(self) -> None:
        """Select the signature."""
        self._item = self._items[0x00]
        self._offset = 0

    def read(self, port: int, size: int) -> int:
        """Return the next byte; the selector reads as a port without a device."""
        if port != DATA:
            return -1
        offset, self._offset = self._offset, self._offset + 1
        return self._item[offset] if offset < len(self._item) else 0

    def write(self, port: int, size: int, value: int) -> None:
        """Select an item with a word; items cannot be written."""
        if size == 2:
            self._item = self._items.get(value, b"")
            self._offset = 0
