"""What is checked of the memory that Python shares with the monitor, before anything else reads it.

Without --isolate a guest can write there, and with it a device may. What the monitor cannot have written ends the run
with MonitorDamaged. A guest that writes what the monitor could have written as well deceives us: that is not noticed.
"""

from collections.abc import Callable
from typing import Final, NoReturn

from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.layout import offset_of
from trapline.arch.vectors import FORCEABLE, bits
from trapline.errors import MonitorDamaged
from trapline.machine.record import RECORD_SIZE, Record, RecordFlags

from .layout import CODE_AT, IOPM_AT, MSRPM_AT, PML4_AT, TABLES_AT, SharedMemory

_ALL_FLAGS: Final = RecordFlags.HAS_ERROR_CODE | RecordFlags.HAS_ADDRESS | RecordFlags.FORWARDED
_VECTOR, _CPL, _FLAG = (offset_of(Record, name) for name in ("vector", "cpl", "flags"))
_VECTORS, _CPLS, _FLAGS = bytes(bits(FORCEABLE)), bytes(range(4)), bytes(range(_ALL_FLAGS + 1))
"""The values that the monitor writes there."""
EXITS: Final = frozenset(map(int, ExitCode)) - {int(ExitCode.INVALID)} | frozenset(EXCEPTION_EXITS)
"""The codes of the exits of a guest that was entered."""
_PARTS: Final = (
    ("its code was written over", CODE_AT, TABLES_AT),
    ("its descriptor tables were written over", TABLES_AT, PML4_AT),
    ("its page tables were written over", PML4_AT, MSRPM_AT),
)
"""What never changes while guests run."""


class Damage:
    """Raises MonitorDamaged, and finds what was written over."""

    def __init__(
        self, shared: SharedMemory, *, isolated: bool, q35: bool, mapped: Callable[[int], bool] = lambda address: True
    ) -> None:
        """`isolated`: the guest's CPU cannot reach the memory. `q35`: nor could it be isolated on this machine.

        `mapped(address)` asks QEMU whether the monitor's device has its memory there.
        """
        self._shared = shared
        self._mapped = mapped
        self._isolated, self._q35 = isolated, q35
        self._intact: bytes | None = None

    def found(self, what: str) -> NoReturn:
        """Raise MonitorDamaged."""
        raise MonitorDamaged(what, isolated=self._isolated, q35=self._q35)

    def check_exit(self, code: int) -> None:
        """Check the VMCB after an exit whose code is not one of `EXITS`."""
        if code != ExitCode.INVALID:
            self.found(f"its VMCB has the exit code {code:#x}, which no CPU writes")
        control, block = self._shared.vmcb.control, self._shared.block
        if (control.msrpm_base_pa, control.iopm_base_pa) != (block + MSRPM_AT, block + IOPM_AT):
            self.found("its VMCB was written over")

    def keep(self) -> None:
        """Keep a copy of what must not change; the first time only, before a guest has run."""
        if self._intact is None:
            self._intact = bytes(self._shared.memory[CODE_AT:MSRPM_AT])

    def why_silent(self) -> str | None:
        """Return why the monitor may not answer any more, as far as its memory tells; None: it does not.

        Before a guest has run the firmware may not have come to the device yet.
        """
        if self._intact is None:
            return None
        return self.written_over() or (None if self._mapped(self._shared.base) else "its device was taken away")

    def written_over(self) -> str | None:
        """Return what was written over since `keep`, as a sentence; None: nothing that never changes."""
        intact = self._intact
        if intact is None or self._shared.memory[CODE_AT:MSRPM_AT] == intact:
            return None
        now = self._shared.memory
        return next(name for name, at, end in _PARTS if now[at:end] != intact[at - CODE_AT : end - CODE_AT])


def good_records(block: bytes) -> int:
    """Return how many of whole records, from the first on, the monitor can have written."""
    # Bytes that are sliced and translated: this is done millions of times a second.
    vectors, cpls, flags = block[_VECTOR::RECORD_SIZE], block[_CPL::RECORD_SIZE], block[_FLAG::RECORD_SIZE]
    count = len(vectors)
    if vectors.translate(None, _VECTORS) or cpls.translate(None, _CPLS) or flags.translate(None, _FLAGS):
        columns = (vectors, _VECTORS), (cpls, _CPLS), (flags, _FLAGS)
        return min(count - len(column.lstrip(allowed)) for column, allowed in columns)
    return count
