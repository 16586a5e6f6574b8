"""Hides the PCI device of the shared memory from the guest: its configuration space does not answer.

Only port 0xCF8 is intercepted: an address that names the device goes out with its enable bit clear, and the data port
then answers as it does where there is no device.
"""

from typing import Final

from trapline.arch import ioio
from trapline.arch.emulation import finish_instruction
from trapline.arch.exits import exception_exit
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.errors import ProcessorError

from . import pci
from .layout import SharedMemory

_DB_EXIT: Final = exception_exit(Vector.DB)


class ConfigGuard:
    """Answers the guest's accesses to the configuration address port."""

    def __init__(self, shared: SharedMemory) -> None:
        self._vmcb = shared.vmcb
        self._mailbox = shared.mailbox
        self.output: int | None = None
        """What to write to the port for the guest before it resumes."""

    def reset(self) -> None:
        """Forget the guest's address: a reset clears it."""
        self._mailbox.config_address = 0

    def answer(self) -> bool:
        """Execute the guest's IN or OUT; True: a single step is due, and the exit is now that of its #DB."""
        control, save = self._vmcb.control, self._vmcb.save
        info = control.exit_info_1
        if info & ioio.STRING:
            raise ProcessorError(
                "the guest uses string I/O on the PCI configuration address port, which trapline cannot follow"
            )
        covered = ioio.covered(info)
        self.output = None
        if info & ioio.IN:
            kept = 0 if info & ioio.DWORD else save.rax & ~covered
            save.rax = kept | self._mailbox.config_address & covered
        elif info & ioio.DWORD:
            address = self._mailbox.config_address = save.rax & covered
            hidden = address & pci.DEVICE_BITS == pci.address(pci.MONITOR_DEVICE, 0)
            self.output = address & ~pci.ENABLE if hidden else address
        return complete(self._vmcb)


def complete(vmcb: Vmcb) -> bool:
    """End an IN or OUT that was executed; True: a single step is due, and the exit is now that of its #DB."""
    control, save = vmcb.control, vmcb.save
    save.rip = control.exit_info_2
    if not finish_instruction(control, save):
        return False
    control.exit_code = _DB_EXIT
    return True
