"""The end of an instruction that was executed in the guest's place."""

from typing import Final

from trapline.arch.emulation import finish_instruction
from trapline.arch.exits import exception_exit
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb

_DB_EXIT: Final = exception_exit(Vector.DB)


def complete(vmcb: Vmcb, rip: int) -> bool:
    """Go on at `rip`; True: a single step is due, and the exit is now that of its #DB."""
    control, save = vmcb.control, vmcb.save
    save.rip = rip
    if not finish_instruction(control, save):
        return False
    control.exit_code = _DB_EXIT
    return True
