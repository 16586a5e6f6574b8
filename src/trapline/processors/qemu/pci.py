"""The few facts of PCI configuration that we need (PCI 2.1, 3.7.4.1; i440FX and Q35 datasheets)."""

from typing import Final

from trapline.devices.ports import PCI_ADDRESS

CONFIG_ADDRESS: Final = PCI_ADDRESS
CONFIG_DATA: Final = CONFIG_ADDRESS + 4

ENABLE: Final = 1 << 31
DEVICE_BITS: Final = 0x80FF_FF00
"""In CONFIG_ADDRESS: the enable bit, bus, device and function."""

HOST_BRIDGE: Final = (0, 0)

MONITOR_DEVICE: Final = (0x1E, 7)
"""Device and function of the shared memory: without a function 0 beside it, enumeration never looks there."""

COMMAND: Final = 0x04
MEMORY_ENABLE: Final = 1 << 1
BAR2: Final = 0x18
"""The memory BAR of QEMU's ivshmem device: 64 bits, so it takes two registers."""

SHADOW_REGISTERS: Final = {0x1237: 0x59, 0x29C0: 0x90}
"""PAM0 by the host bridge's device id: i440FX, Q35."""
SHADOW_OPEN: Final = (0x30, *(0x33,) * 6)
"""PAM0-6: RAM for reads and writes at 0xF0000-0xFFFFF, then at 0xC0000-0xEFFFF."""


def address(device: tuple[int, int], register: int) -> int:
    """Return what CONFIG_ADDRESS takes for a register of (device, function) on bus 0."""
    return ENABLE | device[0] << 11 | device[1] << 8 | register
