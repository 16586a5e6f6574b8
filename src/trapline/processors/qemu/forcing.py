"""Makes a guest that QEMU's gdbstub has stopped leave with a #VMEXIT before the instruction that it is at.

INT3 is written over the instruction's first byte, one step executes it and leaves through the SWINT intercept, and the
byte is restored. Nothing else runs meanwhile.
"""

from collections.abc import Callable
from typing import Final

from trapline.errors import FaultError, ProcessorError
from trapline.machine.linear import code_address, translate
from trapline.machine.memory import GuestMemory

from .gdb import GdbClient
from .layout import SharedMemory

_INT3: Final = b"cc"
_NO_EXIT: Final = 0x7777_7777
"""An exit code that no CPU writes."""


def force_exit(
    gdb: GdbClient, shared: SharedMemory, memory: GuestMemory, address: int, step: Callable[[], object]
) -> bool:
    """Make the guest leave before the instruction at a linear address; False: its fetch faults, unseen.

    `step` steps its CPU, which is the one whose memory the stub accesses. An intercepted fault of the fetch does as
    well as INT3: it is raised again when the guest is resumed.
    """
    control = shared.vmcb.control
    control.exit_code = _NO_EXIT
    gdb.send(b"m%x,1" % address, b"M%x,1:%b" % (address, _INT3))
    byte, stored = gdb.receive(), gdb.receive()
    step()
    left = control.exit_code != _NO_EXIT
    if stored == b"OK":
        _put_back(gdb, shared, memory, address, byte, in_guest=not left)
    return left and code_address(shared.vmcb.save) == address


def _put_back(
    gdb: GdbClient, shared: SharedMemory, memory: GuestMemory, address: int, byte: bytes, *, in_guest: bool
) -> None:
    """Restore the byte: by its linear address in the guest, by its physical one in the monitor (`tables`)."""
    try:
        where = address if in_guest else translate(shared.vmcb.save, memory, address)
    except FaultError as error:
        raise ProcessorError(f"the breakpoint at {address:#x} cannot be taken out of memory: {error}") from error
    if gdb.command(b"M%x,1:%b" % (where, byte)) != b"OK":
        raise ProcessorError(f"the breakpoint at {address:#x} cannot be taken out of memory")
