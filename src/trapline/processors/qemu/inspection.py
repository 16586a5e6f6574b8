"""What QEMU's human monitor prints of its machine: its chips, and the screen in text mode."""

import re
from typing import Final

from trapline.devices import text_screen
from trapline.devices.chips import ChipState, PicState
from trapline.devices.interrupt_command import decode

from .qmp import Qmp

_PIC: Final = re.compile(r"^pic([01]): irr=(\w+) imr=(\w+) isr=(\w+) .*?irq_base=(\w+)", re.MULTILINE)
_WORD: Final = re.compile(r" 0x([0-9a-f]{8})\b")
_COMMAND: Final = re.compile(r"^ICR[ \t]+0x(\w+)", re.MULTILINE)
_OF_SEABIOS: Final = 0xC4610
"""It looks for other CPUs by a startup IPI to all: page 0x10 is where they are to begin (SeaBIOS, smp_scan)."""
_IN_SERVICE: Final = re.compile(r"^ISR[ \t]+([\d \t()a-z]*)", re.MULTILINE)


def read_chips(qmp: Qmp, cpus: int) -> ChipState | None:
    """Return the state of the controllers; None: QEMU does not answer, or has none. `cpus`: how many there are."""
    found = parse_chips(qmp.ask_human("info pic"), qmp.ask_human("info lapic"), qmp.ask_human("info registers"))
    return found if found is None or cpus == 1 else found._replace(starts_cpu=False)


def read_screen(qmp: Qmp) -> bytes:
    """Return the memory of the screen in text mode, as the CPU reads it; empty: QEMU does not answer."""
    printed = qmp.ask_human(f"xp /{text_screen.SIZE // 4}wx {text_screen.ADDRESS:#x}")
    words = _WORD.findall(printed)
    return b"".join(int(word, 16).to_bytes(4, "little") for word in words)


def parse_chips(pics: str, local: str, registers: str) -> ChipState | None:
    """Return what `info pic`, `info lapic` and `info registers` print; None: there is no pair of 8259s."""
    found = {number: PicState(*(int(value, 16) for value in values)) for number, *values in _PIC.findall(pics)}
    if set(found) != {"0", "1"}:
        return None
    match = _IN_SERVICE.search(local)
    vectors = re.findall(r"\b\d+\b", match[1]) if match else []
    command = _COMMAND.search(local)
    return ChipState(
        found["0"],
        found["1"],
        sum(1 << int(vector) for vector in set(vectors)),
        a20="A20=0" not in registers,
        starts_cpu=command is not None and _starts_cpu(int(command[1], 16)),
    )


def _starts_cpu(icr: int) -> bool:
    """Return whether the low half of the interrupt command register starts a CPU, and is not SeaBIOS's."""
    return icr != _OF_SEABIOS and decode(icr).starts
