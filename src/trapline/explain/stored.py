"""What there is to explain in the evidence of a stored run."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from trapline.errors import UsageError
from trapline.symbols.efi_images import Image
from trapline.trace.files import Trace

from .blackbox import each_chain
from .evidence import Evidence, from_stored
from .explain import Disassembler, explain, explain_delivered
from .explanation import Explanation
from .instruction import Namer
from .pictures import Pictures, draw
from .unexplained import Unexplained

_UNRETURNED: Final = 64
"""How many exceptions that a guest never came back from are explained: a run tells two."""


class Explainable(NamedTuple):
    """A double or triple fault, or an exception that the guest never came back from."""

    title: str
    chain: list[Evidence]
    """In the order of the exceptions; one piece, of an exception that was delivered."""
    delivered: bool
    """Whether the first exception was: it is explained by itself."""

    @property
    def record(self) -> int | None:
        """The number of the last record; None: it has none."""
        return self.chain[-1].sequence

    @property
    def images(self) -> tuple[Image, ...]:
        """What UEFI firmware had loaded, for `LoadedImages.place`."""
        return self.chain[-1].images

    def explanation(self, name: Namer, disassemble: Disassembler, unexplained: Unexplained) -> Explanation:
        """Return the explanation; where an error of trapline's own kept it from being made it says so."""

        def made() -> Explanation:
            if self.delivered:
                return explain_delivered(self.chain[0], name=name, disassemble=disassemble)
            return explain(self.chain, name=name, disassemble=disassemble)

        return unexplained.attempt(made, lambda told: Explanation(None, (), self.chain[-1].becomes, (), (), told))

    def pictures(self, name: Namer, unexplained: Unexplained) -> Pictures:
        """Return the state as pictures; none where an error of trapline's own kept them from being drawn."""
        chained = not self.delivered or self.chain[0].vectoring is not None
        return unexplained.guard(lambda: draw(self.chain, chained=chained, name=name), Pictures((), (), ()))


def evidence_of(trace: Trace, outcomes: set[str] | None = None) -> Iterator[Evidence]:
    """Yield the evidence in a trace; see `Trace.evidence`. Raises UsageError with its name."""
    for found in trace.evidence(outcomes):
        try:
            piece = from_stored(found.evidence)
        except UsageError as error:
            raise UsageError(f"{trace.name}: {found.place} is damaged: {error}") from error
        yield piece


def explainable(evidence: Iterable[Evidence]) -> Iterator[Explainable]:
    """Yield each fatal chain, oldest first, then the exceptions that the guest never came back from."""
    unreturned = deque[Evidence](maxlen=_UNRETURNED)

    def others() -> Iterator[Evidence]:
        for piece in evidence:
            if piece.unreturned:
                unreturned.append(piece)
            else:
                yield piece

    for chain in each_chain(others()):
        if any(piece.fatal for piece in chain):
            record = chain[-1].sequence
            title = "at the end" if record is None else f"up to record {record}"
            yield Explainable(f"{title}{_cpu(chain[-1])}", chain, delivered=False)
    for piece in unreturned:
        title = f"record {piece.sequence}{_cpu(piece)}, which the guest never came back from"
        yield Explainable(title, [piece], delivered=True)


def _cpu(piece: Evidence) -> str:
    """Return the CPU for a title, if it is not CPU 0."""
    return f" on CPU {piece.vcpu}" if piece.vcpu else ""
