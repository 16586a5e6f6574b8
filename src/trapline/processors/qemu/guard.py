"""What the guest's accesses to guarded ports do: all that they do on plain QEMU, but to what is trapline's own.

A rule is given an access of the guest. It yields those that the monitor is to execute in the guest's place, of any
port and size, gets what each IN has read, and returns what the guest's IN reads.

QEMU's TCG gives an access to the device at its first port, whole, or to nothing where it is not aligned (memory.c,
memory_region_access_valid). So an access that only reaches into a guarded port from below is executed as it is.
"""

from collections.abc import Callable, Generator
from typing import Final, NamedTuple, TypeAlias

from . import pci
from .layout import DOORBELL_PORT, Mailbox

EJECT_PORTS: Final = (0xAE08, 0x0CC8)
"""Writing here ejects a slot of the selected PCI bus: PIIX4, ICH9 (QEMU docs/specs/acpi_pci_hotplug)."""
_DWORD: Final = 4


class Access(NamedTuple):
    """An IN or OUT."""

    port: int
    size: int
    """1, 2 or 4 bytes."""
    value: int | None = None
    """What OUT writes; None: IN."""
    ends: bool = False
    """It ends the machine: the guest does not go on."""
    resets: bool = False
    """It may reset the machine."""


Steps: TypeAlias = Generator[Access, int, int]
Rule: TypeAlias = Callable[[Access], Steps]


def as_it_is(access: Access) -> Steps:
    """Execute the access itself."""
    return (yield access)


def doorbell(access: Access) -> Steps:
    """The monitor's doorbell is to be a port without a device: all ones."""
    yield from ()
    return -1


def eject(access: Access) -> Steps:
    """Keep the device of the shared memory in its slot. QEMU ejects one slot, that of the lowest bit.

    Which bus is selected is not asked: a guest may lay a BAR over the port that tells it.
    """
    if access.value is not None and access.size == _DWORD:
        slot = (access.value & -access.value).bit_length() - 1
        if slot == pci.MONITOR_DEVICE[0]:
            return 0
    return (yield access)


def configure(mailbox: Mailbox) -> Rule:
    """Return the rule that hides the PCI device of the shared memory: its configuration space does not answer.

    An address that names the device goes out with its enable bit clear, and the data port then answers as it does where
    there is no device. What the guest wrote is kept in the mailbox, where the monitor keeps it as well.
    """

    def rule(access: Access) -> Steps:
        if access.size != _DWORD:
            return (yield access)
        if access.value is None:
            found = yield access
            written = mailbox.config_address
            return written if found == hidden(written) else found
        mailbox.config_address = access.value
        return (yield access._replace(value=hidden(access.value)))

    return rule


def hidden(address: int) -> int:
    """Return what goes out for a configuration address."""
    ours = address & pci.DEVICE_BITS == pci.address(pci.MONITOR_DEVICE, 0)
    return address & ~pci.ENABLE if ours else address


def rules(mailbox: Mailbox) -> dict[int, Rule]:
    """Return the rule of each guarded port, for the accesses that begin there."""
    return {
        pci.CONFIG_ADDRESS: configure(mailbox),
        DOORBELL_PORT: doorbell,
        **dict.fromkeys(EJECT_PORTS, eject),
    }
