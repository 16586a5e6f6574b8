"""What the CPUs do on which the end of a run is not."""

from collections.abc import Iterator
from typing import Final

from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.reset import STARTUP_PAGE
from trapline.errors import FaultError
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.linear import code_address, stack_address, translate
from trapline.symbols import Names

_EMPTY: Final = {0x00: "zeros", 0xFF: "ones"}
"""Bytes that are no code."""
_LOOKED_AT: Final = 64
_FIRMWARE: Final = range(0xE_0000, 0x10_0000)
"""Where a PC BIOS executes."""


def describe_others(vcpu: Vcpu, names: Names) -> Iterator[str]:
    """Yield sentences on each CPU of the stopped guest but this one: where it is, and what may be wrong there."""
    for other in vcpu.cpus:
        if other is not vcpu:
            yield _describe(other, names)
        if other is not vcpu and not _waits_in_firmware(other):
            yield from _stack_of_both(vcpu, other)
            yield from _started_at_nothing(other)


def _describe(other: Vcpu, names: Names) -> str:
    if other.waits:
        return f"CPU {other.number} waits for a startup IPI."
    if _waits_in_firmware(other):
        return f"CPU {other.number} waits in the firmware: the guest has not started it."
    save = other.save
    symbol = names.lookup(code_address(save))
    place = f"{save.cs.selector:04x}:{save.rip:x}{'' if symbol is None else f' {symbol}'}"
    does = "waits in a HLT" if other.processor.halted else "executes"
    interrupts = "on" if save.rflags & RFLAGS.IF else "off"
    return f"CPU {other.number} {does} at {place}, cpl {save.cpl}, interrupts {interrupts}."


def _waits_in_firmware(other: Vcpu) -> bool:
    """Say whether a CPU halts where firmware leaves it, which has started each to count them."""
    return other.processor.halted and not other.save.cr0 & CR0.PG and code_address(other.save) in _FIRMWARE


def _stack_of_both(vcpu: Vcpu, other: Vcpu) -> Iterator[str]:
    """Tell of two stack pointers that are near each other in memory."""
    if other.waits or vcpu.waits:
        return
    try:
        ours, theirs = (translate(each.save, each.processor.memory, stack_address(each.save)) for each in (vcpu, other))
    except FaultError:
        return
    if abs(ours - theirs) < PAGE:
        yield (
            f"The stack pointers of CPU {vcpu.number}, {vcpu.save.rsp:#x}, and of CPU {other.number}, "
            f"{other.save.rsp:#x}, are less than a page apart: if both use one stack, each overwrites what the other "
            "has pushed."
        )


def _started_at_nothing(other: Vcpu) -> Iterator[str]:
    """Tell of a startup IPI for a page where no code is. A CPU that has left real mode was led on by some."""
    if other.startup is None or other.save.cr0 & CR0.PE:
        return
    address = other.startup << STARTUP_PAGE
    data = set(other.processor.memory.read(address, _LOOKED_AT))
    if len(data) == 1 and (what := _EMPTY.get(data.pop())) is not None:
        yield (
            f"CPU {other.number} was started by a startup IPI with the vector {other.startup:#x}, so at {address:#x}, "
            f"where there is no code: memory is all {what}."
        )
