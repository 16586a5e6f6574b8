"""A PC's chips in plain Python: the devices of a guest that needs no firmware, clocked from outside.

One module a device; `machine.BareMachine` wires them. Nothing here executes instructions, keeps threads or reads the
host's clock. Where the manuals leave room, the devices do as QEMU's do, and they start as PC firmware leaves them:
interrupt controllers in virtual wire mode, the timer at 18.2 Hz, the A20 gate open.
"""

from typing import Final

SECOND: Final = 1_000_000_000
"""Virtual time is in ns."""
