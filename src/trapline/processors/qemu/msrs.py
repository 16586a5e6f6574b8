"""MSRs of TCG that the guest does not reach by itself: RDMSR and WRMSR execute beside it (`aside`).

The permission map holds three ranges (APM 15.11): what is outside always exits. TCG reads it as zero, and ignores what
is written. And of the SMIs that the CPU counts, the first was the firmware's (`unlock`).
"""

from typing import Final

from trapline.arch.bits import M32
from trapline.arch.exits import exception_exit
from trapline.arch.msr import SMI_COUNT, msrpm_bit
from trapline.arch.vectors import Vector
from trapline.asm.decoder import decode_at_rip
from trapline.machine.linear import next_rip
from trapline.machine.memory import GuestMemory

from .aside import Aside, Result
from .completion import complete
from .layout import SharedMemory

_GP_EXIT: Final = exception_exit(Vector.GP)


class Msrs:
    """Executes the guest's RDMSR and WRMSR where the hypervisor has no part in it."""

    def __init__(self, shared: SharedMemory, aside: Aside, memory: GuestMemory, *, tcg: bool) -> None:
        self._vmcb, self._gprs, self._msrpm = shared.vmcb, shared.gprs, shared.msrpm
        self._aside = aside
        self._memory = memory
        self._tcg = tcg

    def watch(self) -> None:
        """Intercept reads of the number of SMIs."""
        bit = msrpm_bit(SMI_COUNT)
        assert bit is not None
        if self._tcg:
            self._msrpm[bit // 8] |= 1 << bit % 8

    @property
    def concerned(self) -> bool:
        """Whether the MSR of an exit is one of these."""
        number = self._gprs.rcx & M32
        return self._tcg and (number == SMI_COUNT or msrpm_bit(number) is None)

    def answer(self) -> bool:
        """Execute the access; True: the exit is now that of an exception. False: the guest is to go on."""
        control, save = self._vmcb.control, self._vmcb.save
        result = self._aside.write_msr() if control.exit_info_1 & 1 else self._aside.read_msr()
        if result is Result.FAULT:
            control.exit_code, control.exit_info_1 = _GP_EXIT, 0
            return True
        if result is Result.LATER:
            return False
        if self._gprs.rcx & M32 == SMI_COUNT:
            count = (self._gprs.rdx << 32 | save.rax) - 1
            save.rax, self._gprs.rdx = count & M32, count >> 32
        return complete(self._vmcb, next_rip(save, decode_at_rip(save, self._memory).length))
