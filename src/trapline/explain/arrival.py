"""How execution came to an instruction that cannot be fetched, as the stack and the registers show it."""

from typing import Final

from trapline.machine.linear import stack_address

from .callers import caller
from .instruction import Instruction

_NULL_PAGE: Final = 0x1000
"""Below, registers have the same value by chance."""


def arrival(i: Instruction) -> str | None:
    """Say what called RIP, or else what has its address as a return or a jump through a register leaves it."""
    attempt, save = i.attempt, i.attempt.save
    call = caller(attempt)
    if call is not None:
        return f"it was called at {i.place(call)}"
    width = attempt.bits // 8
    below = stack_address(save) - width & attempt.space.mask
    if attempt.read(below, width) == save.rip:
        return f"the stack has that address below its top, at {below:#x}, as a return leaves it"
    holders = i.holders(save.rip) if save.rip >= _NULL_PAGE and attempt.bits != 16 else []
    if not holders:
        return None
    verb, through = ("holds", holders[0]) if len(holders) == 1 else ("hold", "one of them")
    return f"{' and '.join(holders)} {verb} that address, as for a jump through {through}"
