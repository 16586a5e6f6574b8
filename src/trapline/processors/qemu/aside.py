"""Executes a few instructions of the monitor's as a guest of their own, beside the guest.

What happens there is an exit, and never happens to the monitor: an exception, or an SMI, whose handler is the guest's
and may not be entered outside of one.
"""

from enum import Enum, auto
from typing import Final

from trapline.arch.descriptors import CODE_64, DATA_32, LONG_GATE_SIZE, Attribute, SystemType, flat
from trapline.arch.exits import ExitCode, exception_exit, set_intercept
from trapline.arch.layout import offset_of, zero
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb, load_segment

from . import layout, placement
from .firmware_entry import CODE64, DATA, DESCRIPTORS
from .handover import Handover
from .layout import Command, SharedMemory
from .monitor import monitor

_GP_EXIT: Final = exception_exit(Vector.GP)
_ALWAYS: Final = (ExitCode.VMRUN, ExitCode.VMMCALL, ExitCode.SHUTDOWN, ExitCode.SMI)
_ASID: Final = 2
"""Another than the guest's, whose translations these are not."""
GATES: Final = Vector.NMI + 1


class Result(Enum):
    """What became of the instruction."""

    DONE = auto()
    FAULT = auto()
    """It raised #GP(0)."""
    LATER = auto()
    """An SMI or NMI came first and is pending: the guest has to take it."""


class Aside:
    """The guest beside the guest."""

    def __init__(self, shared: SharedMemory, handshake: Handover) -> None:
        self._shared = shared
        self._handshake = handshake
        self._vmcb = Vmcb.from_buffer(shared.memory, shared.at + layout.ASIDE_AT)

    def absorb_nmi(self) -> bool:
        """Take the NMI that is pending; False: an SMI came first."""
        return self._execute(monitor.ABSORB) is Result.DONE

    def read_msr(self) -> Result:
        """RDMSR in the guest's place, on its registers."""
        result = self._execute(monitor.RDMSR, _GP_EXIT, ExitCode.NMI)
        if result is Result.DONE:
            self._shared.vmcb.save.rax = self._vmcb.save.rax
        return result

    def write_msr(self) -> Result:
        """WRMSR in the guest's place, of its registers."""
        return self._execute(monitor.WRMSR, _GP_EXIT, ExitCode.NMI)

    def _execute(self, label: str, *intercepts: int) -> Result:
        shared, vmcb = self._shared, self._vmcb
        enter_monitor(vmcb, shared, placement.address(shared, label))
        vmcb.control.asid = _ASID
        vmcb.save.rax = shared.vmcb.save.rax
        for intercept in (*_ALWAYS, *intercepts):
            set_intercept(vmcb.control, intercept)
        self._handshake.call(Command.ASIDE)
        if vmcb.control.exit_code == ExitCode.VMMCALL:
            return Result.DONE
        return Result.FAULT if vmcb.control.exit_code == _GP_EXIT else Result.LATER


def enter_monitor(vmcb: Vmcb, shared: SharedMemory, address: int) -> None:
    """Write a whole VMCB for 64-bit code at an address, with the tables and the stack of the monitor."""
    block = shared.block
    placement.clear_control(vmcb.control, block)
    save = vmcb.save
    zero(save)
    save.cr0, save.cr4 = CR0.PE | CR0.ET | CR0.NE | CR0.WP | CR0.PG, CR4.PAE
    save.cr3, save.efer = shared.base + layout.PML4_AT, EFER.SVME | EFER.LME | EFER.LMA
    save.dr6, save.dr7, save.rflags = DR6.FIXED, DR7.FIXED, RFLAGS.ALWAYS_ONE
    save.rip, save.rsp = address, block + layout.MAILBOX_AT
    tables = block + layout.TABLES_AT
    save.gdtr.base, save.gdtr.limit = tables + offset_of(layout.Tables, "gdt"), 8 * len(DESCRIPTORS) - 1
    save.idtr.base, save.idtr.limit = tables + offset_of(layout.Tables, "idt"), LONG_GATE_SIZE * GATES - 1
    load_segment(save.cs, flat(CODE64, CODE_64))
    for segment in (save.ss, save.ds, save.es, save.fs, save.gs):
        load_segment(segment, flat(DATA, DATA_32))
    save.tr.attributes = SystemType.TSS_32 | SystemType.BUSY | Attribute.P
