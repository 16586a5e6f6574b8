"""Explains exceptions: why one was raised, why each delivery of a chain failed, and the cause that is proven."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from trapline.arch import delivery
from trapline.arch.delivery import Delivered, Failed, Step, checks
from trapline.arch.events import SHUTDOWN, Event, EventType, Shutdown
from trapline.arch.mode import mode
from trapline.arch.vectors import Vector

from . import pages
from .attempt import Attempt, Change, Finding
from .denied import denied_accesses
from .evidence import Evidence
from .explanation import Delivery, Explanation, Origin
from .failures import failure
from .gates import never_loaded
from .instruction import Namer, code_bytes
from .memory import MissingMemory
from .origin import reason
from .paging import cause_of_fetch, unmapped_code
from .proof import causes
from .task import not_started, switched

_UNKNOWN: Final = Explanation(None, (), None, (), (), None)
Disassembler: TypeAlias = Callable[[bytes, int, int], str | None]
"""Takes up to 15 bytes of code, their linear address and the code's size in bits; returns the first instruction."""


def explain(
    chain: Sequence[Evidence], *, name: Namer | None = None, disassemble: Disassembler | None = None
) -> Explanation:
    """Explain a chain: evidence of one state, in the order of the exceptions."""
    last = chain[-1]
    begun = switched(chain)
    if begun is not None:
        before = explain(chain[:begun], name=name, disassemble=disassemble) if begun else _UNKNOWN
        return not_started(before._replace(at_end=last.at_end), chain[begun])
    # None of the deliveries changed the state, and the last piece of evidence includes the most memory.
    first = chain[0]._replace(save=last.save, gprs=last.gprs, memory=last.memory)
    unknown = Explanation(None, (), last.becomes, (), (), None, at_end=last.at_end)
    if first.vectoring is None:
        return unknown._replace(
            unproven="The event under delivery is not known: the processor names none, and no exception was recorded."
        )
    attempt = Attempt.of(first, first.vectoring)
    try:
        origin = origin_of(first, attempt, name, disassemble)
        steps = delivery.chain(first.save, attempt.event, first.memory, physical_bits=first.physical_bits)
        deliveries = _deliveries(chain, attempt, steps)
        found = unknown._replace(origin=origin, deliveries=deliveries, walks=_walks(first, attempt, steps))
        fetch = _cause_of_fetch(first, attempt)
        if fetch is not None:
            without = [no_handler(finding.cause) for finding in never_loaded(attempt)]
            return found._replace(causes=(fetch[0].cause, *without), changes=fetch[1:], effect=_fetched(attempt))
        if any(each.observed for each in deliveries):
            return found._replace(unproven="The processor and the model of delivery disagree.")
        proven = list(causes(attempt, first, steps[0].outcome))
        early = next(never_loaded(attempt), None)
        if not proven and early is not None and origin.sentence is not None:
            return found._replace(causes=(origin.sentence, no_handler(early.cause)))
        if not proven:
            return found._replace(unproven=_unproven(attempt, steps[0].outcome, origin))
    except MissingMemory as missing:
        return unknown._replace(unproven=f"The evidence does not include the memory at {missing.gpa:#x}.")
    sentences = [finding.cause for finding, _ in proven]
    unloaded, interrupt = proven[0][0].early, origin.event.type == EventType.INTR
    if (unloaded or interrupt) and (leading := origin.sentence) is not None:
        sentences[0] = no_handler(sentences[0]) if unloaded else sentences[0]
        sentences.insert(0, leading)
    return found._replace(
        causes=tuple(sentences),
        changes=tuple(change for _, change in proven),
        effect=f"{origin.name} would have been delivered",
    )


def no_handler(cause: str) -> str:
    """Return the sentence about an IDT that was never loaded, to follow the cause of the exception that needed it."""
    return f"no handler could be called, since {cause}"


def explain_exception(
    evidence: Evidence, *, name: Namer | None = None, disassemble: Disassembler | None = None
) -> Explanation:
    """Explain one exception by itself: why it was raised, whether or not it was delivered since.

    It is `evidence.event`, or else `evidence.vectoring`; of a page fault it takes `address`, or else `first_address`.
    The registers must be those before the delivery, with RIP at the instruction for a fault; memory is read on demand
    (`evidence.capture` reads the stopped guest's). The explanation has no deliveries. Where memory is missing,
    `unproven` says so and there is no origin.
    """
    event = evidence.event or evidence.vectoring
    address = evidence.first_address if evidence.event is None else evidence.address
    unknown = Explanation(None, (), evidence.becomes, (), (), None, at_end=evidence.at_end)
    if event is None:
        return unknown._replace(unproven="The exception is not known.")
    alone = evidence._replace(event=event, vectoring=event, first_address=address)
    try:
        attempt = Attempt.of(alone, event)
        found = unknown._replace(origin=origin_of(alone, attempt, name, disassemble), walks=_walks(alone, attempt, ()))
        fetch = _cause_of_fetch(alone, attempt)
    except MissingMemory as missing:
        return unknown._replace(unproven=f"The evidence does not include the memory at {missing.gpa:#x}.")
    if fetch is None:
        return found
    return found._replace(causes=(fetch[0].cause,), changes=fetch[1:], effect=_fetched(attempt))


def explain_delivered(
    evidence: Evidence, *, name: Namer | None = None, disassemble: Disassembler | None = None
) -> Explanation:
    """Explain one exception that was delivered: by the delivery that raised it, if one did, else by itself."""
    if evidence.vectoring is not None and evidence.event is not None:
        found = explain([evidence], name=name, disassemble=disassemble)
        if found.origin is not None and not any(each.observed for each in found.deliveries):
            return found
    return explain_exception(evidence, name=name, disassemble=disassemble)


def origin_of(evidence: Evidence, attempt: Attempt, name: Namer | None, disassemble: Disassembler | None) -> Origin:
    """Return the event of an attempt, where it was raised and why."""
    save, code = attempt.save, None
    if disassemble is not None and evidence.event is not None:
        code = disassemble(code_bytes(attempt), attempt.rip, attempt.bits)
    symbol = None if name is None else name(attempt.rip)
    why = reason(evidence, attempt, name)
    return Origin(attempt.event, save.cpl, save.cs.selector, save.rip, attempt.bits, symbol, code, why, mode(save))


def _deliveries(chain: Sequence[Evidence], first: Attempt, steps: Sequence[Step]) -> tuple[Delivery, ...]:
    """Return each delivery, up to the first in which the processor did something else than the model."""
    found: list[Delivery] = []
    passed: Event | None = None
    """What the processor raised: its error codes may differ from the model's."""
    for number, (modelled, outcome, _, follows) in enumerate(steps):
        event = passed if passed is not None and passed.vector == modelled.vector else modelled
        seen = next((e for e in chain if e.vectoring is not None and e.vectoring.vector == event.vector), None)
        attempt = Attempt(first.save, first.memory, event, first.physical_bits)
        if isinstance(outcome, Delivered):
            if seen is not None:
                found.append(Delivery(event, None, None, None, None, None, seen.event or SHUTDOWN))
            elif number:
                found.append(Delivery(event, None, None, None, None, attempt.handler(outcome)))
            break
        why, section = failure(attempt, outcome), outcome.check.section
        if seen is not None and not _agrees(outcome, follows, seen):
            found.append(Delivery(event, why, section, None, None, None, seen.event or SHUTDOWN))
            break
        raised = outcome.event
        if raised is not None and seen is not None and seen.event is not None:
            raised = seen.event
        combined = follows if isinstance(follows, Event) and raised and follows.vector != raised.vector else None
        found.append(Delivery(event, why, section, raised, combined, None))
        passed = combined or raised
        if seen is not None and seen.becomes is SHUTDOWN:
            break
    return tuple(found)


def _cause_of_fetch(evidence: Evidence, attempt: Attempt) -> tuple[Finding, Change] | None:
    """Return the proven cause of a first exception that was raised since the code at RIP could not be fetched."""
    event = attempt.event
    if event.type != EventType.EXCEPTION:
        return None
    if event.vector == Vector.PF and evidence.first_address not in (None, attempt.rip):
        return None
    return cause_of_fetch(attempt)


def _fetched(attempt: Attempt) -> str:
    return f"the instruction at {attempt.rip:#x} could have been fetched"


def _walks(evidence: Evidence, attempt: Attempt, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the page walks of the accesses that were denied, each address once."""
    found = (pages.walk(attempt, *access) for access in denied_accesses(evidence, attempt, steps))
    return tuple(walk for walk in found if walk is not None)


def _agrees(failed: Failed, follows: Event | Shutdown | None, seen: Evidence) -> bool:
    """Return whether the processor raised what the model did."""
    if seen.event is None:
        return follows is SHUTDOWN
    raised = {event.vector for event in (failed.event, follows) if isinstance(event, Event)}
    if failed.check is checks.PUSH_ADDRESS:
        raised.add(Vector.GP)  # what some processors raise for a stack that is not canonical
    return seen.event.vector in raised and (seen.address is None or failed.address in (None, seen.address))


def _unproven(attempt: Attempt, outcome: Delivered | Failed, origin: Origin) -> str:
    """Say what is known, what raised the first exception before what its delivery lacked."""
    if isinstance(outcome, Delivered):
        return f"The model delivers {attempt.event}."
    code = unmapped_code(attempt)
    if code is not None:
        return f"{code[0].upper()}{code[1:]}"
    known = "" if origin.reason is None or origin.sentence is None else f"{origin.sentence} "
    return (
        f"{known}The first check that failed: {failure(attempt, outcome)} [APM vol. 2, {outcome.check.section}]. "
        "No single change was found with which the delivery succeeds."
    )
