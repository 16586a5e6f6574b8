"""What the interrupt controllers and the A20 gate show of a guest that hangs or halts."""

from collections.abc import Iterator
from typing import Final

from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import VECTORS, Vector
from trapline.arch.vmcb import SaveArea
from trapline.devices.chips import ChipState, PicState
from trapline.devices.hints import ONE_CPU

_LINES: Final = 8
_CASCADE: Final = 2
"""The line of the master that is the slave's."""


def describe_chips(state: ChipState, save: SaveArea, *, halted: bool) -> Iterator[str]:
    """Yield sentences: on A20, on interrupts at exception vectors, and on those without an end of interrupt."""
    if not state.a20:
        yield (
            "A20 is off: address line 20 is held at 0, so that 1 MiB (0x100000) is address 0, where real mode has its "
            "vector table (IVT), and so on up to 2 MiB."
        )
    if state.starts_cpu:
        yield f"{ONE_CPU[0].upper()}{ONE_CPU[1:]}."
    pics = ((0, state.master), (_LINES, state.slave))
    if save.cr0 & CR0.PE:
        for first, pic in pics:
            yield from _at_exceptions(first, pic, state.arrived, save)
    if halted and save.rflags & RFLAGS.IF:
        for first, pic in pics:
            yield from _without_end(first, pic)
        vectors = ", ".join(f"{vector:#x}" for vector in range(256) if state.in_service >> vector & 1)
        if vectors:
            yield (
                f"The local APIC has vector {vectors} in service, while the guest waits in HLT: the handler did not "
                "write the EOI register, and no interrupt of the same or a lower priority comes until it does."
            )


def describe_waiting(state: ChipState, save: SaveArea) -> Iterator[str]:
    """Yield sentences on the interrupts that wait, of a guest in a HLT that nothing can end."""
    enabled = bool(save.rflags & RFLAGS.IF)
    for first, pic in ((0, state.master), (_LINES, state.slave)):
        held = pic.irr & (pic.imr if enabled else ~pic.imr)
        lines = [first + line for line in range(_LINES) if held >> line & 1 and first + line != _CASCADE]
        if lines:
            names = " and ".join(f"IRQ {line}" for line in lines)
            why = f"masked (IMR {pic.imr:#x})" if enabled else "not taken, since RFLAGS.IF is clear"
            yield f"{names} {'is' if len(lines) == 1 else 'are'} pending, but {why}: the HLT waits for ever."


def _at_exceptions(first: int, pic: PicState, arrived: int, save: SaveArea) -> Iterator[str]:
    # Firmware goes to protected mode while it serves an interrupt, and has no IDT there.
    in_service = pic.isr if save.idtr.base else 0
    for line in range(_LINES):
        vector = pic.base + line
        if vector < len(VECTORS) and (arrived >> vector | in_service >> line) & 1:
            name = f", that of {VECTORS[vector].mnemonic}" if vector in Vector._value2member_map_ else ""
            yield (
                f"IRQ {first + line} arrives at vector {vector}{name}: it is an interrupt and not an exception. The "
                f"interrupt controller was not remapped: its vector base, from ICW2, is {pic.base:#x}."
            )


def _without_end(first: int, pic: PicState) -> Iterator[str]:
    for line in range(_LINES):
        if pic.isr >> line & 1 and first + line != _CASCADE:
            yield (
                f"IRQ {first + line} is in service (ISR {pic.isr:#x}) while the guest waits in HLT: its handler sent "
                "no end of interrupt (EOI), and neither it nor an IRQ of lower priority comes until one is sent."
            )
