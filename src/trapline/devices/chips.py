"""The state of a PC's chips that tells why a guest hangs: its interrupt controllers, and the A20 gate."""

from typing import NamedTuple


class PicState(NamedTuple):
    """Registers of one 8259A: bits 0 to 7 are its lines."""

    irr: int
    """Lines that wait."""
    imr: int
    """Lines that are masked."""
    isr: int
    """Lines in service: their interrupts were taken, and no end of interrupt has come."""
    base: int
    """The vector of line 0, from ICW2."""


class ChipState(NamedTuple):
    """The chips of a machine with one CPU."""

    master: PicState
    """IRQ 0 to 7."""
    slave: PicState
    """IRQ 8 to 15."""
    in_service: int = 0
    """A mask of the vectors that the local APIC has in service."""
    arrived: int = 0
    """A mask of the vectors below 32 at which interrupts of the PICs were delivered outside real mode, where known."""
    a20: bool = True
    """False: address line 20 is held at 0."""
    starts_cpu: bool = False
    """The last interprocessor interrupt was an INIT or a startup of another CPU, where known."""
