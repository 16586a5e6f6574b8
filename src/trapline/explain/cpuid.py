"""CPUID of the guest's CPU as the answers that were asked for, kept as part of the evidence."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

_REGISTERS: Final = ("EAX", "EBX", "ECX", "EDX")

Answer: TypeAlias = tuple[int, int, int, int]
"""EAX, EBX, ECX and EDX."""


class CpuidAnswers:
    """CPUID by function and subfunction, asked on demand."""

    def __init__(
        self,
        answers: Mapping[tuple[int, int], Answer] | None = None,
        source: Callable[[int, int], Answer] | None = None,
    ) -> None:
        """`source(function, subfunction)` asks the CPU; without it what was not asked before is unknown."""
        self.answers = dict(answers or {})
        self._source = source

    def __call__(self, function: int, subfunction: int = 0) -> Answer | None:
        """Return an answer; None: it is not known."""
        key = function, subfunction
        if key not in self.answers and self._source is not None:
            self.answers[key] = self._source(function, subfunction)
        return self.answers.get(key)

    def has(self, function: int, register: int, bit: int) -> bool | None:
        """Say whether a bit of an answer's register is set; None: it is not known."""
        answer = self(function)
        return None if answer is None else bool(answer[register] >> bit & 1)

    def detach(self) -> None:
        """Keep what was asked so far, and ask no more."""
        self._source = None


def bit_name(function: int, register: int, bit: int) -> str:
    """Return what a bit of CPUID is called in a sentence."""
    return f"CPUID function {function:#x}, {_REGISTERS[register]} bit {bit}"
