"""Where a CPU is that QEMU's gdbstub has stopped: in the guest, or in what is trapline's."""

from enum import Enum

from trapline.arch.registers import EFER

from .gdb import CpuState
from .layout import PML4_AT, SharedMemory


class Where(Enum):
    """Where a stopped CPU is."""

    GUEST = "between two instructions of the guest"
    HALTED = "in the guest, in HLT: a step would wait for an interrupt"
    SMM = "in system management mode"
    OURS = "in the monitor, or in the firmware before it"


def where_is(state: CpuState, shared: SharedMemory) -> Where:
    """Return where a CPU is. Firmware and monitor execute at the guest's linear addresses, too."""
    if state.in_smm:
        return Where.SMM
    ours = shared.base + PML4_AT  # of the firmware too, as soon as it has SVM
    if not state.efer & EFER.SVME or state.cr3 == ours:
        return Where.OURS
    return Where.HALTED if state.halted else Where.GUEST
