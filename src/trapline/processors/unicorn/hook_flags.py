"""The status flags of an instruction with a hook.

For the hook Unicorn computes them into `cc_src` and sets `cc_op` to EFLAGS. Where the instruction calls back or faults,
it restores the `cc_op` from before the hook, whose operands are overwritten.
"""

from typing import Final

from trapline.arch.error_codes import PF_WRITE
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm.decoder import Mnemonic, instruction_at_rip
from trapline.machine.linear import code_address

from .binding import Binding
from .engine import Engine
from .memory import Ram
from .stops import DEBUG_TRAP, INTERCEPTED, Stop

_BETWEEN: Final = (
    Stop.ASKED, Stop.BREAKPOINT, Stop.MISALIGNED, Stop.NO_AVX, Stop.NO_CODE, Stop.FAILED, DEBUG_TRAP,
    INTERCEPTED + ExitCode.VINTR,
)  # fmt: skip
"""Events between two instructions."""
_FIRST_EXCEPTION: Final = INTERCEPTED + EXCEPTION_EXITS.start
_PF, _GP = _FIRST_EXCEPTION + Vector.PF, _FIRST_EXCEPTION + Vector.GP


class HookFlags:
    """Repairs the flags in the VMCB after a stop."""

    def __init__(self, vmcb: Vmcb, binding: Binding, ram: Ram, engine: Engine) -> None:
        self._save = vmcb.save
        self._binding, self._ram = binding, ram
        self._unicorn_control = engine.vmcb.control

    def repair(self, event: int) -> None:
        """Correct RFLAGS in the VMCB, if the event came in an instruction with a hook."""
        if event in _BETWEEN or not self._binding.is_hooked() or self._is_fetch(event):
            return
        save = self._save
        save.rflags = save.rflags & ~RFLAGS.STATUS | self._binding.context.cc_src & RFLAGS.STATUS

    def _is_fetch(self, event: int) -> bool:
        """Return whether the instruction could not be fetched, so that its hook was not called either."""
        if event not in (_PF, _GP):
            return False
        instruction = instruction_at_rip(self._save, self._ram)
        if instruction.mnemonic == Mnemonic.INVALID:
            return True
        if event == _GP:
            return False
        # What can be fetched can be read: a load from there does not fault.
        inside = 0 <= self._unicorn_control.exit_info_2 - code_address(self._save) < instruction.len
        return inside and not self._binding.context.error_code & PF_WRITE
