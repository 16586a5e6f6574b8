"""The code of an exception handler, as far as it can be read: from its entry over branches, not into what it calls."""

from collections.abc import Callable
from typing import Final, NamedTuple

_MOST: Final = 512
"""Instructions that are followed."""


class HandlerCode(NamedTuple):
    """What was read. Addresses are linear."""

    instructions: frozenset[int]
    returns: frozenset[int]
    """The return addresses of its calls."""
    whole: bool
    """Whether no branch was met whose target only the registers or the stack have, and no bound."""


def handler_code(read: Callable[[int], bytes], entry: int, bits: int) -> HandlerCode:
    """Follow a handler from its entry; `read` returns up to 15 bytes of code, fewer where nothing is mapped."""
    import iced_x86 as iced

    from trapline.asm.decoder import Mnemonic, branch_target, new_decoder

    flow = iced.FlowControl
    seen: set[int] = set()
    returns: set[int] = set()
    whole, paths = True, [entry]
    while paths:
        at: int | None = paths.pop()
        while at is not None and at not in seen:
            if len(seen) == _MOST:
                return HandlerCode(frozenset(seen), frozenset(returns), whole=False)
            seen.add(at)
            instruction = new_decoder(read(at), bits, at).decode()
            if instruction.is_invalid:
                break
            at = instruction.next_ip
            kind = instruction.flow_control
            if kind in (flow.CALL, flow.INDIRECT_CALL):
                returns.add(instruction.next_ip)
            elif kind == flow.CONDITIONAL_BRANCH:
                paths.append(branch_target(instruction))
            elif kind == flow.UNCONDITIONAL_BRANCH:
                near = instruction.is_jmp_short or instruction.is_jmp_near
                at = branch_target(instruction) if near else None
                whole &= near
            elif kind in (flow.INDIRECT_BRANCH, flow.RETURN, flow.EXCEPTION):
                whole &= kind != flow.INDIRECT_BRANCH and instruction.mnemonic not in (Mnemonic.RET, Mnemonic.RETF)
                at = None
    return HandlerCode(frozenset(seen), frozenset(returns), whole)
