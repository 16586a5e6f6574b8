"""A guest that halts for good: HLT with RFLAGS.IF clear, of which the monitor learns nothing.

While a guest is quiet, QEMU is asked for the state of its CPU, once a second.
"""

import re
from collections.abc import Callable
from typing import Final

from trapline.arch.registers import RFLAGS
from trapline.machine.processor import Outcome

from .qmp import Qmp

_CPU: Final = re.compile(r"^CPU#(\d+)$", re.MULTILINE)
_FLAGS: Final = re.compile(r"\b[ER]FL=([0-9a-f]+)")


class Halts:
    """Kicks a guest that has halted for good."""

    def __init__(self, qmp: Qmp, kick: Callable[[], None], *, several: bool = False) -> None:
        """`several`: the machine has several CPUs, and has halted when all have."""
        self._qmp, self._kick = qmp, kick
        self._question = "info registers -a" if several else "info registers"
        self._found = False

    def look(self) -> None:
        """Ask QEMU, while the guest runs."""
        if not self._found and all(map(is_halted_for_good, self._ask().values())):
            self._found = self._qmp.run_state() == "running"
            if self._found:
                self._kick()

    def is_halted(self) -> bool:
        """Say whether the running guest waits in HLT."""
        return self.halted()[0]

    def halted(self) -> dict[int, bool]:
        """Return whether each CPU of the running guest waits in HLT."""
        return {number: _waits(text) for number, text in self._ask().items()}

    def _ask(self) -> dict[int, str]:
        return registers_by_cpu(self._qmp.ask_human(self._question))

    def forget(self) -> None:
        """Take note that the machine was reset: what was found before, as it was about to sleep, is void."""
        self._found = False

    def take(self) -> Outcome:
        """Return what the kick means that has stopped the guest."""
        found, self._found = self._found, False
        return Outcome.HALTED if found else Outcome.KICKED


def registers_by_cpu(printed: str) -> dict[int, str]:
    """Return what QEMU's `info registers` prints, by the number of the CPU; all is of CPU 0 where it names none."""
    first, *parts = _CPU.split(printed)
    numbers = map(int, parts[::2])
    return dict(zip(numbers, parts[1::2], strict=True)) or {0: first}


def is_halted_for_good(registers: str) -> bool:
    """Say whether a CPU waits in HLT and no interrupt can wake it, from what `info registers` prints."""
    flags = _FLAGS.search(registers)
    waits = _waits(registers) and "SMM=0" in registers
    return waits and flags is not None and not int(flags[1], 16) & RFLAGS.IF


def _waits(registers: str) -> bool:
    return "HLT=1" in registers
