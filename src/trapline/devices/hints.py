"""Devices of a PC that the bare machine lacks, by the ports and addresses where a guest looks for them."""

from typing import Final

PORTS: Final = (
    (0x0000, 0x000F, "a DMA controller"),
    (0x00C0, 0x00DF, "a DMA controller"),
    (0x0170, 0x0177, "an IDE disk"),
    (0x01CE, 0x01D0, "a Bochs VBE display"),
    (0x01F0, 0x01F7, "an IDE disk"),
    (0x0220, 0x022F, "a sound card"),
    (0x0278, 0x027F, "a parallel port"),
    (0x02E8, 0x02EF, "a serial port COM4"),
    (0x02F8, 0x02FF, "a serial port COM2"),
    (0x0378, 0x037F, "a parallel port"),
    (0x03B0, 0x03BF, "a VGA"),
    (0x03C0, 0x03DF, "a VGA"),
    (0x03E8, 0x03EF, "a serial port COM3"),
    (0x03F0, 0x03F5, "a floppy disk"),
    (0x03F6, 0x03F6, "an IDE disk"),
    (0x03F7, 0x03F7, "a floppy disk"),
    (0x0376, 0x0376, "an IDE disk"),
    (0x0400, 0x043F, "ACPI power management"),
    (0x0600, 0x063F, "ACPI power management"),
    (0x0514, 0x051B, "DMA of the firmware configuration"),
    (0x0CF8, 0x0CF8, "a PCI bus"),
    (0x0CFC, 0x0CFF, "a PCI bus"),
    (0x5658, 0x5659, "a VMware port"),
    (0xB000, 0xB03F, "ACPI power management"),
)
"""First port, last port, what a PC has there."""

MEMORY: Final = (
    (0x000A0000, 0x000BFFFF, "a VGA"),
    (0x000E0000, 0x000FFFFF, "a BIOS with its tables, such as ACPI's RSDP and the MP table"),
    (0xFED00000, 0xFED003FF, "an HPET"),
    (0xFED40000, 0xFED44FFF, "a TPM"),
)
"""The same by guest-physical address."""

OTHER_CPU: Final = "the guest sent an INIT or startup IPI to another CPU"
ONE_CPU: Final = f"{OTHER_CPU}: its machine has one"


def port_hint(port: int) -> str | None:
    """Name what a PC has at `port` and this machine has not."""
    return next((name for first, last, name in PORTS if first <= port <= last), None)


def memory_hint(gpa: int) -> str | None:
    """Name what a PC has at `gpa` and this machine has not."""
    return next((name for first, last, name in MEMORY if first <= gpa <= last), None)


class Hints:
    """What the guest looked for in vain: one text a device, in the order of the first touch."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def note(self, name: str, where: str) -> None:
        """Remember that the guest touched device `name` (with its article) at `where`."""
        if name not in self._texts:
            self._texts[name] = (
                f"the guest looked for {name} ({where}); this machine has none, QEMU has: --processor qemu"
            )

    def note_cpu(self, cpus: int) -> None:
        """Remember that the guest reset or started a CPU that its machine, with so many, does not have."""
        self.tell("another CPU", ONE_CPU if cpus == 1 else f"{OTHER_CPU}: its machine has {cpus}")

    def tell(self, what: str, sentence: str) -> None:
        """Remember a sentence, unless there is one about this already."""
        self._texts.setdefault(what, sentence)

    @property
    def texts(self) -> list[str]:
        """What was remembered, a sentence each."""
        return list(self._texts.values())
