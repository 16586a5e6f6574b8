"""Keeps an isolated guest from the PCI device behind the shared memory: its configuration space is not there.

Only port 0xCF8 is intercepted: an address that names the device goes out with its enable bit clear, and the data port
then answers as it does where there is no device.
"""

from typing import Final

from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, set_intercept
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.errors import ProcessorError

from . import pci
from .shared import Shared

_IN: Final = 1 << 0
_STRING: Final = 1 << 2
_SIZES: Final = ((1 << 4, 0xFF), (1 << 5, 0xFFFF), (1 << 6, 0xFFFF_FFFF))
"""Bits of EXITINFO1 and what an access of that size covers (APM 15.10.2)."""
_DWORD: Final = 1 << 6
_ENABLE: Final = 1 << 31
_DEVICE_BITS: Final = 0x80FF_FF00
_DB_EXIT: Final = EXCEPTION_EXITS.start + Vector.DB


class ConfigGuard:
    """Answers the guest's accesses to the configuration address port."""

    def __init__(self, shared: Shared) -> None:
        self._vmcb = shared.vmcb
        self._iopm = shared.iopm
        self._address = 0
        self.output: int | None = None
        """What is to be written to the port for the guest before it goes on."""

    def reset(self) -> None:
        """Forget the guest's address: a reset clears it."""
        self._address = 0

    def watch(self) -> None:
        """Intercept the port."""
        self._iopm[pci.CONFIG_ADDRESS // 8] |= 1 << pci.CONFIG_ADDRESS % 8
        set_intercept(self._vmcb.control, ExitCode.IOIO)

    def answer(self) -> bool:
        """Execute the guest's IN or OUT; True: a single step is due, and the exit is now that of its #DB."""
        control, save = self._vmcb.control, self._vmcb.save
        info = control.exit_info_1
        if info & _STRING:
            raise ProcessorError("the guest uses string I/O on the PCI address port; that needs a run without --isolate")
        covered = next(mask for bit, mask in _SIZES if info & bit)
        self.output = None
        if info & _IN:
            kept = 0 if info & _DWORD else save.rax & ~covered
            save.rax = kept | self._address & covered
        elif info & _DWORD:
            self._address = save.rax & covered
            hidden = self._address & _DEVICE_BITS == pci.address(pci.MONITOR_DEVICE, 0)
            self.output = self._address & ~_ENABLE if hidden else self._address
        save.rip = control.exit_info_2
        control.interrupt_shadow = 0
        flags = save.rflags
        save.rflags = flags & ~RFLAGS.RF
        if not flags & RFLAGS.TF:
            return False
        save.dr6 |= DR6.BS
        control.exit_code = _DB_EXIT
        return True
