"""What the end of an instruction does, for one that is executed in the CPU's place."""

from .registers import DR6, RFLAGS
from .vmcb import ControlArea, SaveArea


def finish_instruction(control: ControlArea, save: SaveArea) -> bool:
    """End an instruction, but for RIP: RF is cleared (APM 3.1.6), and the interrupt shadow ends (APM 15.21.5).

    True: TF was set, and a #DB is due, for which DR6.BS is set (APM 13.1.4).
    """
    flags = save.rflags
    save.rflags = flags & ~RFLAGS.RF
    control.interrupt_shadow = 0
    if not flags & RFLAGS.TF:
        return False
    save.dr6 |= DR6.BS
    return True
