"""Explains one exception that the guest is stopped at: why it was raised."""

from trapline.arch.events import Event
from trapline.machine.processor import Processor

from .evidence import capture
from .explain import Disassembler, explain_exception
from .explanation import Explanation
from .instruction import Namer


def explain_undelivered(
    processor: Processor,
    event: Event,
    address: int | None,
    *,
    name: Namer | None = None,
    disassemble: Disassembler | None = None,
) -> Explanation:
    """Explain an exception of a stopped guest that is not delivered yet; `address` is that of a #PF."""
    evidence = capture(processor, event, event, (address, address), event, None)
    return explain_exception(evidence, name=name, disassemble=disassemble)
