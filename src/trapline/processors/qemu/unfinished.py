"""Accesses that QEMU has noticed, and not done yet: it may stop a CPU there when another one has hit something.

With several CPUs TCG executes an instruction with LOCK, and XCHG, on watched memory while it holds the others back
(cpu_exec_step_atomic). It abandons it there to execute it again, after which it stops, and may be stopped between the
two. The CPU then looks as it does after an access by the instruction before. Which it is follows from where the CPU was
entered: of two accesses in a row the first one stops it, so it is entered between the two.
"""

from collections.abc import Iterator
from typing import Any

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea
from trapline.asm.accesses import accesses_of, moves_operand
from trapline.asm.decoder import Mnemonic, new_decoder
from trapline.machine.linear import LONGEST, code_address, code_bits, read_code, read_mapped
from trapline.machine.memory import GuestMemory
from trapline.machine.processor import Watchpoint


def is_unfinished(save: SaveArea, gprs: Gprs, memory: GuestMemory, hit: Watchpoint, entered: int | None) -> bool:
    """Return whether an access is that of the instruction at RIP, which is yet to be done, and not of the one before.

    `entered`: the linear address at which the CPU was last entered.
    """
    instruction = new_decoder(read_code(save, memory), code_bits(save), save.rip).decode()
    if not _is_locked(instruction) or not _touches(instruction, save, gprs, hit):
        return False
    before = _before(save, memory)
    return entered == code_address(save) or not any(
        moves_operand(one) or _touches(one, save, gprs, hit) for one in before
    )


def _is_locked(instruction: Any) -> bool:  # noqa: ANN401  # iced has no hints
    return bool(instruction.has_lock_prefix) or instruction.mnemonic == Mnemonic.XCHG


def _touches(instruction: Any, save: SaveArea, gprs: Gprs, hit: Watchpoint) -> bool:  # noqa: ANN401
    return any(
        (hit.reads or one.writes) and one.gva < hit.address + hit.size and hit.address < one.gva + one.size
        for one in accesses_of(instruction, save, gprs)
    )


def _before(save: SaveArea, memory: GuestMemory) -> Iterator[Any]:
    """Return what can be the instruction that ends at RIP."""
    address = code_address(save)
    for length in range(1, min(LONGEST, address) + 1):
        code = read_mapped(save, memory, address - length, length)
        found = new_decoder(code, code_bits(save), save.rip - length).decode()
        if len(code) == length == found.len and not found.is_invalid:
            yield found
