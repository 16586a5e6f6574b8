"""What is known of a chain of exceptions, as values: for a terminal, a report and JSON."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.arch.error_codes import describe_error_code
from trapline.arch.events import SHUTDOWN, Event, EventType, Shutdown
from trapline.arch.vectors import Vector

from .attempt import Change
from .document import DeliveryDocument, ExplanationDocument, OriginDocument

AT_END: Final = (
    "The registers are as recorded when it was raised; code, stack, descriptors and page tables were read from memory "
    "at the end of the run, and may have changed since."
)


class Origin(NamedTuple):
    """The event whose delivery failed first, and the state in which it was raised."""

    event: Event
    """The event."""
    cpl: int
    """The privilege level."""
    cs: int
    """The selector of the code segment."""
    rip: int
    """RIP of the instruction."""
    bits: int
    """The operand size of the code: 16, 32 or 64."""
    symbol: str | None
    """The name of its address, with the source line where it is known."""
    instruction: str | None
    """The instruction, as text; None: it is not mapped, or the event is not an exception."""
    reason: str | None
    """Why it was raised; None: nothing proves it."""
    mode: str
    """The operating mode, as "64-bit mode"."""

    @property
    def name(self) -> str:
        """The event, as #PF(0x2)."""
        return _text(self.event)

    @property
    def detail(self) -> str | None:
        """The reason, or else what is known without one."""
        vector, kind, code = self.event
        if self.reason is not None or kind != EventType.EXCEPTION:
            return self.reason
        if vector == Vector.DF:
            return "the exceptions that led to it were not recorded"
        return describe_error_code(vector, code) if code else None

    @property
    def sentence(self) -> str | None:
        """What was raised, where and why, as a sentence; None where nothing is known but the event."""
        what = self.reason
        if what is None and (self.event.type != EventType.EXCEPTION or self.event.vector == Vector.DF):
            return None
        if what is None:
            what = " ".join(filter(None, (self.instruction, self.detail and f"({self.detail})")))
        if not what:
            return None
        return f"{self.name} at {self.symbol or f'{self.rip:#x}'}: {what}."

    def __str__(self) -> str:
        text = f"{self.name} at {self.cs:04x}:{self.rip:0{self.bits // 4}x}"
        text += f" {self.symbol}" if self.symbol else ""
        text += f", CPL {self.cpl}, {self.mode}"
        return f"{text}: {self.instruction}" if self.instruction else text

    def to_json(self) -> OriginDocument:
        """Return the fields, the addresses in hexadecimal."""
        return {
            "event": self.name,
            "cpl": self.cpl,
            "cs": self.cs,
            "rip": f"{self.rip:#x}",
            "bits": self.bits,
            "symbol": self.symbol,
            "instruction": self.instruction,
            "reason": self.reason,
            "mode": self.mode,
        }


class Delivery(NamedTuple):
    """One delivery of the chain."""

    event: Event
    """What was delivered."""
    failure: str | None
    """The check that failed, as a clause; None: none did."""
    section: str | None
    """The section of the APM, vol. 2, that describes that check."""
    raised: Event | None
    """The exception that followed; None: none did, or the model goes no further."""
    combined: Event | None
    """The #DF that the two combined to, if they did."""
    handler: int | None
    """The linear address of the handler, if the event was delivered."""
    observed: Event | Shutdown | None = None
    """What the processor did, if the model disagrees with it."""

    def __str__(self) -> str:
        text = f"delivering {_text(self.event)}: "
        if self.handler is not None:
            return f"{text}the handler at {self.handler:#x} starts"
        if self.observed is not None:
            did = "the processor shut down" if self.observed is SHUTDOWN else f"the processor raised {self.observed}"
            return f"{text}{self.failure or 'no check fails in the model'}, but {did}"
        text += self.failure or ""
        text += f" -> {self.raised}" if self.raised is not None else ""
        return f"{text} -> {_text(self.combined)}" if self.combined is not None else text

    def to_json(self) -> DeliveryDocument:
        """Return the fields, events by name."""
        return {
            "event": _text(self.event),
            "failure": self.failure,
            "section": self.section,
            "raised": _name(self.raised),
            "combined": _name(self.combined),
            "handler": None if self.handler is None else f"{self.handler:#x}",
            "observed": _name(self.observed),
        }


class Explanation(NamedTuple):
    """What is known of a chain of exceptions."""

    origin: Origin | None
    """None: it is not known which event was being delivered."""
    deliveries: tuple[Delivery, ...]
    """Each delivery of the chain, in order."""
    ending: Event | Shutdown | None
    """What the guest got in the end; None: the last exception was discarded."""
    causes: tuple[str, ...]
    """Sentences: what raised the first exception, where it is known and comes first; what was wrong with the delivery.

    Two of the latter where two things were wrong.
    """
    changes: tuple[Change, ...]
    """The changes of state or memory that prove the causes, all together."""
    unproven: str | None
    """A sentence in place of causes: what is known without a proof."""
    walks: tuple[str, ...] = ()
    """The page walks that denied an access, each entry with its address."""
    effect: str | None = None
    """What would have been with the changes, as "#UD would have been delivered"; None without a proof."""
    at_end: bool = False
    """Whether memory was read at the end of the run, and not when the exception was raised."""

    @property
    def cause(self) -> str:
        """The causes in one text, or what is known without a proof."""
        first, *others = self.causes or ("",)
        return " ".join((first, *(f"{other[0].upper()}{other[1:]}" for other in others))) or self.unproven or ""

    @property
    def repair(self) -> str | None:
        """The changes, as in "with IDTR.limit 0xfff"; None without a proof."""
        return ", and ".join(change.text for change in self.changes) or None

    @property
    def source(self) -> str | None:
        """A sentence on where the state was read; None: when the exception was raised."""
        return AT_END if self.at_end else None

    @property
    def outcome(self) -> str:
        """The ending: "shutdown", "discarded", or the event that the guest gets."""
        return "discarded" if self.ending is None else _name(self.ending) or ""

    def paragraphs(self) -> Iterator[tuple[str, str]]:
        """Yield the indentation and the text of the first exception, each delivery, the ending, causes and repair."""
        origin = self.origin
        if origin is not None:
            yield "  ", str(origin)
            if origin.detail is not None:
                yield "     ", origin.detail
        for each in self.deliveries:
            yield "  -> ", str(each)
        if origin is None or self.deliveries or self.ending != origin.event:
            ending = self.outcome if self.ending in (None, SHUTDOWN) else f"the guest gets {self.outcome}"
            yield "  " if origin is None else "  -> ", ending
        for walk in self.walks:
            yield "  ", f"page walk of {walk}"
        for cause in self.causes:
            yield "", f"Cause: {cause}"
        if (repair := self.repair) is not None:
            yield "", f"{repair[0].upper()}{repair[1:]}, {self.effect}."
        if self.unproven is not None:
            yield "", f"Cause: not proven. {self.unproven}"
        if (source := self.source) is not None:
            yield "", source

    def __str__(self) -> str:
        return "\n".join(f"{start}{text}" for start, text in self.paragraphs())

    def to_json(self) -> ExplanationDocument:
        """Return the explanation, for programs."""
        return {
            "origin": None if self.origin is None else self.origin.to_json(),
            "deliveries": [each.to_json() for each in self.deliveries],
            "ending": self.outcome,
            "causes": list(self.causes),
            "repair": self.repair,
            "effect": self.effect,
            "unproven": self.unproven,
            "walks": list(self.walks),
            "at_end": self.at_end,
        }


def _text(event: Event) -> str:
    """Return an event with its error code, but for a #DF, whose code is always zero."""
    double = event.vector == Vector.DF and event.type == EventType.EXCEPTION
    return str(event._replace(error_code=None) if double else event)


def _name(event: Event | Shutdown | None) -> str | None:
    if event is SHUTDOWN:
        return "shutdown"
    return None if event is None else _text(event)
