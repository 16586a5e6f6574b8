"""The black box: captures evidence, while the guest is stopped, of exceptions raised during the delivery of another.

A plain exception costs one test: those that a processor forwards on its own never reach the black box, and the others
are only tested for an event under delivery.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from trapline.arch.delivery import chain as deliveries
from trapline.arch.events import SHUTDOWN, Event, Shutdown, decode
from trapline.arch.vectors import Vector

from .attempt import Attempt
from .evidence import Evidence, capture
from .instruction import code_bytes, stack_top

if TYPE_CHECKING:
    from trapline.hypervisor.exception import InterceptedException
    from trapline.hypervisor.vcpu import Vcpu

    from .explain import Disassembler
    from .explanation import Explanation
    from .instruction import Namer

KEPT: Final = 64
"""How many pieces of evidence are kept."""
EXPLAINED: Final = 64
"""How many fatal ones, and how many others, are explained at once, so that they include the memory that it takes."""


class BlackBox:
    """Keeps the evidence of exceptions that were raised during the delivery of another event, and of shutdowns."""

    def __init__(self, sink: Callable[[Evidence], None] | None = None) -> None:
        """`sink` gets each piece of evidence, for the file of records."""
        self._sink = sink
        self.evidence: deque[Evidence] = deque(maxlen=KEPT)
        self._seen = [0, 0]
        """Pieces of evidence that were not fatal, and that were."""

    def __call__(
        self, vcpu: "Vcpu", exit: "InterceptedException", injected: Event | Shutdown | None, sequence: int | None
    ) -> None:
        """Keep the evidence of an exception, if there is any; `sequence` is the number of its record.

        Called after the hypervisor's decision and before the next VMRUN: see `hypervisor.recording.Follower`.
        """
        vectoring = exit.vectoring
        if vectoring is None and injected is not SHUTDOWN:
            return
        addresses = exit.address, exit.vectoring_address
        self._keep(capture(vcpu.processor, exit.event, vectoring, addresses, injected, sequence, vcpu.number))

    def shut_down(self, vcpu: "Vcpu") -> None:
        """Keep the evidence of a shutdown, unless its last exception has left some."""
        last = next((piece for piece in reversed(self.evidence) if piece.vcpu == vcpu.number), None)
        if last is None or last.becomes is not SHUTDOWN:
            vmcb = vcpu.processor.vmcb
            vectoring = decode(vmcb.control.exit_int_info)
            page_fault = vectoring is not None and vectoring.vector == Vector.PF
            addresses = None, vmcb.save.cr2 if page_fault else None
            self._keep(capture(vcpu.processor, None, vectoring, addresses, SHUTDOWN, None, vcpu.number))

    def chain(self) -> list[Evidence]:
        """Return the chain that the newest evidence belongs to."""
        return chains(self.evidence)[-1] if self.evidence else []

    def explanation(
        self, *, name: "Namer | None" = None, disassemble: "Disassembler | None" = None
    ) -> "Explanation | None":
        """Explain that chain; None: there is no evidence."""
        from .explain import explain

        chain = self.chain()
        return explain(chain, name=name, disassemble=disassemble) if chain else None

    def _keep(self, evidence: Evidence) -> None:
        from .reading import read_now  # most guests never need it

        read_now(evidence, lambda disassemble: self._read(evidence, disassemble))
        self.evidence.append(evidence)
        if self._sink is not None:
            self._sink(evidence)

    def _read(self, evidence: Evidence, disassemble: "Disassembler") -> None:
        """Read the code, the stack, and all memory that an explanation of the chain so far needs."""
        event = evidence.vectoring or evidence.event
        if event is not None:
            attempt = Attempt.of(evidence, event)
            code_bytes(attempt)
            stack_top(attempt)
        self._seen[evidence.fatal] += 1
        if evidence.becomes is SHUTDOWN or self._seen[evidence.fatal] <= EXPLAINED:
            from .explain import explain
            from .pictures import draw

            chain = chains([*self.evidence, evidence])[-1]
            explain(chain, disassemble=disassemble)
            if evidence.fatal:
                draw(chain)
        elif evidence.vectoring is not None:  # cheaper, for a guest that handles such exceptions again and again
            deliveries(evidence.save, evidence.vectoring, evidence.memory, physical_bits=evidence.physical_bits)


def chains(evidence: Iterable[Evidence]) -> list[list[Evidence]]:
    """Group evidence by the event whose delivery failed first; the group of the newest piece is the last one."""
    return list(each_chain(evidence))


def each_chain(evidence: Iterable[Evidence]) -> Iterator[list[Evidence]]:
    """Yield the same one by one, each with its newest `KEPT` pieces. Each CPU has its own."""
    growing: dict[int, list[Evidence]] = {}
    for piece in evidence:
        chain = growing.pop(piece.vcpu, [])
        if chain and not _continues(chain[-1], piece):
            yield chain
            chain = []
        growing[piece.vcpu] = [*chain[1 - KEPT :], piece]
    yield from growing.values()


def _continues(before: Evidence, piece: Evidence) -> bool:
    same = all(getattr(before.save, name) == getattr(piece.save, name) for name in ("rip", "rsp", "cr3", "rflags"))
    if not isinstance(before.becomes, Event) or piece.vectoring is None:
        return False
    if not same and before.save.tr.selector == piece.save.tr.selector:  # a task gate changes them all
        return False
    return before.becomes[:2] == piece.vectoring[:2]  # real mode has no error codes
