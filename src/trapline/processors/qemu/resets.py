"""The resets of QEMU's CPU, in the log that QEMU itself writes: whether one is real, and whether a crash led to it.

The guest's own shutdowns leave with a #VMEXIT. So a triple fault of the machine that we did not order is one of the
monitor: its memory was written over, or taken away. QEMU's TCG logs each (`-d cpu_reset`). The firmware's own, which
make a reset of an INIT (`unlock`), follow the line of that INIT.
"""

import os
from typing import Final

from .damage import Damage

_RESET: Final = b"CPU Reset"
_TRIPLE_FAULT: Final = b"Triple fault"


class Resets:
    """Reads the log, which is a file in memory."""

    def __init__(self, log: int | None, damage: Damage) -> None:
        """`log` is the log's descriptor; None: there is none, and nothing is checked."""
        self._log = log
        self._damage = damage
        self._read = 0
        self._text = b""
        """Of the log, since the machine began."""
        self._ordered = False

    def order(self) -> None:
        """Note that the monitor is about to triple-fault the machine for us."""
        self._ordered = True

    def came(self) -> bool:
        """Return whether the CPU was reset since `begin`; raises MonitorDamaged if a crash of the monitor led to it."""
        if self._log is None:
            return False
        size = os.fstat(self._log).st_size
        if size > self._read:
            self._text += os.pread(self._log, size - self._read, self._read)
            self._read = size
        if self._text.startswith(_TRIPLE_FAULT) and not self._ordered:
            self._damage.found(self._damage.written_over() or "it crashed")
        return _RESET in self._text

    def check(self) -> None:
        """Check the firmware's or the monitor's report of a reset."""
        if not self.came() and self._log is not None:
            self._damage.found("it reports a reset that was none")

    def begin(self) -> None:
        """Check the report that the machine begins anew; the next one needs a reset of its own."""
        self.check()
        self._text, self._ordered = b"", False
        if self._log is not None:  # the CPU waits, so nothing is logged now
            os.ftruncate(self._log, 0)  # QEMU goes on where it was, and what is before takes no memory
