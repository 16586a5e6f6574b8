"""Which devices `--isolate` lets on a `pc` machine: those that cannot reach the shared memory, whatever the guest does.

Nested paging binds the CPU only. A device is confined where its DMA ends below 4 GiB or a little above, where no memory
BAR of 64 bits could be laid over the shared memory, and where no MSI could be sent there. QEMU is asked what is on the
machine: options, configuration files and defaults all add devices.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from trapline.errors import ProcessorError, UsageError

from . import pci
from .qmp import Qmp

REACH: Final = (1 << 32) + (1 << 16)
"""Where the DMA of a confined device ends: an IDE or USB transfer begins below 4 GiB, and has 64 KiB at most."""

_HOST_BRIDGE: Final = "i440fx"
_WITHOUT_DMA: Final = frozenset(
    (
        *(_HOST_BRIDGE, "piix4_pm", "vga", "secondary-vga", "bochs-display", "cirrus-vga", "ne2k_pci"),
        *("pci-serial", "pci-serial-2x", "pci-serial-4x", "i6300esb", "pvpanic-pci"),
    )
)
_BELOW_4G: Final = frozenset(
    (
        *("piix3", "piix3-ide", "piix4-ide", "piix3-usb-uhci", "piix4-usb-uhci", "pci-ohci", "usb-ehci"),
        *("ich9-usb-uhci1", "ich9-usb-uhci2", "ich9-usb-uhci3", "ich9-usb-ehci1"),
        *("ac97", "es1370", "pcnet"),
    )
)
"""Devices whose addresses have 32 bits; PIIX3 has the ISA bus with its DMA controller."""
_WITHOUT_BUS: Final = frozenset(("vmgenid",))
"""Devices that write where the guest tells them, and that the tree of buses does not show."""
_DEVICE: Final = re.compile(r'^ *dev: ([^,\n]+), id "(.*)"$|^ *class .*, addr (\S+), pci id (\w+:\w+)', re.MULTILINE)


class Device(NamedTuple):
    """A PCI device as `info qtree` has it."""

    type: str
    """QEMU's name for its kind."""
    address: str
    """Bus, slot and function: `00:1e.7`."""
    id: str
    """Vendor and device."""


def pci_devices(tree: str) -> Iterator[Device]:
    """Yield the PCI devices in the answer to `info qtree`."""
    kind = ""
    for match in _DEVICE.finditer(tree):
        if match[1]:
            kind = match[1]
        else:
            yield Device(kind, match[3], match[4])


def check_machine(qmp: Qmp) -> None:
    """Ask QEMU for its devices, and raise as `check_confined`."""
    check_confined(qmp.human_command("info qtree"), qmp.created_devices())


def check_confined(tree: str | None, others: Iterable[str]) -> None:
    """Raise UsageError for a device that could reach the shared memory.

    `tree` is the answer to `info qtree`, `others` are the kinds of the devices that options created. Raises
    ProcessorError where they do not describe a machine.
    """
    devices = list(pci_devices(tree or ""))
    if _HOST_BRIDGE not in (device.type.lower() for device in devices):
        raise ProcessorError("--isolate cannot be used: QEMU does not say which devices the machine has")
    slot, function = pci.MONITOR_DEVICE
    ours = f"00:{slot:02x}.{function}"
    for device in devices:
        if device.address != ours and device.type.lower() not in _WITHOUT_DMA | _BELOW_4G:
            raise _refused(f"{device.type} ({device.id} at {device.address})")
    for kind in others:
        if kind.lower() in _WITHOUT_BUS:
            raise _refused(kind)


def _refused(device: str) -> UsageError:
    return UsageError(
        f"--isolate cannot keep {device} out of the monitor's memory: it can be made to access any address; "
        "leave it out, or run without --isolate"
    )
