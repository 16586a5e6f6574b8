"""Keeps the evidence of the first exceptions of each vector, as it was when they were raised.

Of later ones there is the record alone: an explanation of them takes memory as it is at the end of the run.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trapline.arch.events import Event, Shutdown
from trapline.arch.vectors import VECTORS

from .evidence import Evidence, capture

if TYPE_CHECKING:
    from trapline.hypervisor.exception import InterceptedException
    from trapline.hypervisor.vcpu import Vcpu

KEPT: Final = 8
"""Exceptions of a vector: each takes under 1 ms, and the processor forwards the others without an exit."""


class FirstExceptions:
    """Captures the evidence of the first exceptions of each vector that the guest gets."""

    def __init__(self, newest: Callable[[], bytes], enough: Callable[[int], None]) -> None:
        """`newest()` returns the bytes of the newest record.

        `enough(vectors)` is called with a mask when no more exceptions of a vector are needed.
        """
        self._newest, self._enough = newest, enough
        self.records: dict[int, bytes] = {}
        """Their records by their numbers."""
        self._left = [KEPT] * len(VECTORS)
        self._evidence: dict[int, Evidence] = {}

    def __call__(
        self, vcpu: "Vcpu", exit: "InterceptedException", injected: Event | Shutdown | None, sequence: int | None
    ) -> None:
        """Keep the evidence of an exception, while its vector has room: see `hypervisor.recording.Follower`."""
        vector = exit.event.vector
        if not self._left[vector]:
            return
        self._left[vector] -= 1
        if not self._left[vector]:
            self._enough(1 << vector)
        if sequence is not None and isinstance(injected, Event):
            addresses = exit.address, exit.vectoring_address
            evidence = capture(vcpu.processor, exit.event, exit.vectoring, addresses, injected, sequence, vcpu.number)
            from .explain import explain_delivered  # not before the first exception: they load the disassembler
            from .reading import read_now

            read_now(evidence, lambda disassemble: explain_delivered(evidence, disassemble=disassemble))
            self._evidence[sequence] = evidence
            self.records[sequence] = self._newest()

    def find(self, sequence: int) -> Evidence | None:
        """Return the evidence of the exception whose record has this number; None: there is none."""
        return self._evidence.get(sequence)
