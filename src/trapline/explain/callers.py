"""The call that execution came from, as the return address at the top of the stack shows it."""

from typing import Final

from trapline.asm.decoder import Mnemonic, branch_target, new_decoder
from trapline.machine.linear import stack_address

from .attempt import Attempt

_LENGTHS: Final = range(2, 8)
"""Of near calls, in bytes, without prefixes that are of no use (APM vol. 3, CALL)."""


def caller(attempt: Attempt) -> int | None:
    """Return the address of the near call that went to RIP; None: the stack shows none.

    A call with a target in the instruction counts if the target is RIP; any other may have gone there.
    """
    width = attempt.bits // 8
    back = attempt.read(stack_address(attempt.save), width)
    if back is None:
        return None
    base = 0 if attempt.bits == 64 else attempt.save.cs.base
    for length in _LENGTHS:
        start = base + back - length & attempt.space.mask
        code = attempt.read(start, length)
        if code is None:
            return None
        found = new_decoder(code.to_bytes(length, "little"), attempt.bits, start).decode()
        if found.mnemonic != Mnemonic.CALL or found.len != length:
            continue
        if found.is_call_near_indirect or branch_target(found) == attempt.rip:
            return start
    return None
