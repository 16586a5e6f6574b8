"""An explanation as JSON: the types of its objects. Addresses are hexadecimal text, events are as `#PF(0x2)`."""

from typing import TypedDict


class OriginDocument(TypedDict):
    """The event whose delivery failed first, and where it was raised."""

    event: str
    cpl: int
    cs: int
    """The selector."""
    rip: str
    bits: int
    """Size of the code: 16, 32 or 64."""
    symbol: str | None
    instruction: str | None
    reason: str | None
    """Why it was raised, in a sentence; null: nothing proves it."""
    mode: str
    """The operating mode, as `64-bit mode` or `protected mode, 32-bit code`."""


class DeliveryDocument(TypedDict):
    """One delivery of the chain."""

    event: str
    failure: str | None
    """The check that failed; null: none did."""
    section: str | None
    """Of the APM, vol. 2: where that check is described."""
    raised: str | None
    """The exception that followed."""
    combined: str | None
    """The #DF that the two combined to, if they did."""
    handler: str | None
    """The linear address of the handler, if the event was delivered."""
    observed: str | None
    """What the processor did, if the model of delivery disagrees with it: an event or `shutdown`."""


class ExplanationDocument(TypedDict):
    """Why the guest shut down, or why an exception was raised."""

    origin: OriginDocument | None
    """Null: it is not known which event was being delivered."""
    deliveries: list[DeliveryDocument]
    ending: str
    """`shutdown`, `discarded`, or the event that the guest gets."""
    causes: list[str]
    """Sentences: what raised the first exception, where that comes first; what was wrong with its delivery, proven."""
    repair: str | None
    """The change that proves the causes."""
    effect: str | None
    """What would have been with it."""
    unproven: str | None
    """A sentence in place of causes: what is known without a proof."""
    walks: list[str]
    """The page walks that denied an access."""
    at_end: bool
    """Whether memory was read at the end of the run, and not when the exception was raised."""
