"""The two machines that programs run on, with the same CPU."""

from typing import Final

from trapline.machine.boot import Boot
from trapline.machine.processor import Processor
from trapline.processors.qemu.launch import open_qemu
from trapline.processors.unicorn.processor import UnicornProcessor

from .places import RAM

CPU: Final = "EPYC,-avx,-avx2,-f16c,-fma"
"""What Unicorn 2.1.4 has of its EPYC."""

_SHADOW: Final = 0xC_0000, bytes(0x4_0000)
"""What makes RAM of this, as under QEMU."""


def open_unicorn(*, sets_rf: bool) -> UnicornProcessor:
    """Return a machine in this process; `sets_rf`: as the manual has it, not QEMU 7.2."""
    return UnicornProcessor(
        Boot("fuzz", "", (_SHADOW,), lambda save, gprs: None), RAM, output=lambda data: None, sets_rf=sets_rf
    )


def open_tcg() -> Processor:
    """Return a machine of QEMU."""
    return open_qemu(guest=["-nodefaults"], options=["-cpu", CPU], memory=RAM)
