"""Where a CPU is that QEMU's gdbstub has stopped: in the guest, or in what is trapline's."""

from enum import Enum

from trapline.arch.registers import EFER

from .gdb import CpuState
from .layout import PML4_AT, SharedMemory


class Where(Enum):
    """Where a stopped CPU is."""

    GUEST = "between two instructions of the guest"
    HALTED = "in HLT, of the guest or of the monitor, or waiting for a startup IPI: a step would not end"
    SMM = "in system management mode"
    OURS = "in the monitor, or in the firmware before it"


def where_is(state: CpuState, shared: SharedMemory) -> Where:
    """Return where a CPU is. Firmware and monitor execute at the guest's linear addresses, too."""
    if state.halted:
        return Where.HALTED
    if state.in_smm:
        return Where.SMM
    ours = shared.base + PML4_AT  # of the firmware too, as soon as it has SVM
    return Where.OURS if not state.efer & EFER.SVME or state.cr3 == ours else Where.GUEST
