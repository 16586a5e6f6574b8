"""Explains a chain of exceptions: why the first was raised, why each delivery failed, and the cause that is proven.

A cause is named only if the model proves it: with one thing changed in the evidence, the first event is delivered and
its handler starts. Where two things are wrong, both are named if mending both delivers it and mending one does not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain as concatenated
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

from trapline.arch import delivery
from trapline.arch.delivery import Delivered, Failed, Step
from trapline.arch.descriptors import base, gate_offset_32
from trapline.arch.error_codes import describe_error_code
from trapline.arch.events import SHUTDOWN, Event, EventType, Shutdown
from trapline.arch.paging import FETCH
from trapline.arch.vectors import Vector, mnemonic

from . import gates, pages, repairs, stacks
from .attempt import Attempt, Change, MissingMemory
from .evidence import Evidence
from .failures import failure
from .gates import Finding
from .instruction import Instruction, code_bytes
from .origin import origin

Namer = Callable[[int], str | None]
"""Names a linear address, as `memset+0x1a`; None: it has no name."""
Disassembler = Callable[[bytes, int, int], str | None]
"""Takes up to 15 bytes of code, their linear address and the code's size in bits; returns the first instruction."""

STACK_WORDS: Final = 64
"""How much of the stack is looked at, in words of 8 bytes."""
_TRIED: Final = 6
"""Changes of a first finding behind which a second fault is looked for."""


class Explanation(NamedTuple):
    """What is known of a chain, as sentences."""

    lines: tuple[str, ...]
    """One for each event: what was raised, then why each delivery failed."""
    ending: str
    """What became of it in the end."""
    raised: str | None
    """Why the first exception was raised; None: nothing proves it."""
    causes: tuple[str, ...]
    """What was wrong with its delivery, proven: one sentence, or two where two things were wrong."""
    repair: str | None
    """With what it would have been delivered."""
    known: str | None
    """In place of causes: what is known without a proof."""
    changes: tuple[Change, ...] = ()
    """The repair as changes of state and memory."""

    def to_json(self) -> dict[str, Any]:
        """Return what is told, for programs."""
        return {
            "lines": list(self.lines),
            "ending": self.ending,
            "raised": self.raised,
            "causes": list(self.causes),
            "repair": self.repair,
            "known": self.known,
        }


def explain(
    chain: Sequence[Evidence], *, name: Namer | None = None, disassemble: Disassembler | None = None
) -> Explanation:
    """Explain a chain: evidence of one state, in the order of the exceptions."""
    last = chain[-1]
    # The state is the same all along; the last piece has seen most of the memory.
    first = chain[0]._replace(save=last.save, gprs=last.gprs, memory=last.memory)
    if first.vectoring is None:
        return Explanation((), _becomes(chain[-1].becomes), None, (), None, _NOTHING)
    attempt = Attempt.of(first, first.vectoring)
    try:
        why = origin(first, attempt, first.first_address)
        lines = [_opening(first, attempt, why, name, disassemble)]
        steps = delivery.chain(first.save, attempt.event, first.memory, physical_bits=first.physical_bits)
        told, agrees = _deliveries(chain, attempt, steps)
        proven = list(_causes(attempt, first, steps[0].outcome)) if agrees else []
        known = None if proven else _known(attempt, steps[0].outcome, agrees=agrees)
    except MissingMemory as unknown:
        return Explanation((), _becomes(chain[-1].becomes), None, (), None, f"{unknown}.")
    return Explanation(
        tuple(lines + told),
        _becomes(chain[-1].becomes),
        why,
        tuple(finding.cause for finding, _ in proven),
        ", and ".join(change.text for _, change in proven) or None,
        known,
        tuple(change for _, change in proven),
    )


_NOTHING: Final = "The processor does not say what it was delivering, and no exception was recorded."


def _becomes(result: Event | Shutdown | None) -> str:
    if result is SHUTDOWN:
        return "shutdown"
    return "discarded" if result is None else f"the guest gets {_event(result)}"


def _event(event: Event) -> str:
    """Return an event with its error code, but for a #DF, whose code is always zero."""
    double = event.vector == Vector.DF and event.type == EventType.EXCEPTION
    return str(event._replace(error_code=None) if double else event)


def place(attempt: Attempt) -> str:
    """Return CS:RIP as wide as the code is."""
    width = attempt.bits // 4
    return f"{attempt.save.cs.selector:04x}:{attempt.save.rip:0{width}x}"


def _opening(
    evidence: Evidence, attempt: Attempt, why: str | None, name: Namer | None, disassemble: Disassembler | None
) -> str:
    event, save = attempt.event, attempt.save
    text = _event(event)
    if why is not None:
        text += f" {why}" if event.vector == Vector.PF and event.type == EventType.EXCEPTION else f": {why}"
    elif event.error_code and event.type == EventType.EXCEPTION:
        text += f" ({describe_error_code(event.vector, event.error_code)})"
    text += f", CPL {save.cpl}, at {place(attempt)}"
    named = None if name is None else name(attempt.rip)
    text += f" {named}" if named else ""
    if disassemble is not None and evidence.event is not None:
        code = disassemble(code_bytes(attempt), attempt.rip, attempt.bits)
        text += f": {code}" if code else ""
    if event.vector == Vector.DF and event.type == EventType.EXCEPTION:
        text += "; what led to it was not recorded"
    return text


def _deliveries(chain: Sequence[Evidence], first: Attempt, steps: Sequence[Step]) -> tuple[list[str], bool]:
    """Tell each delivery; False: the processor did something else than the model."""
    lines: list[str] = []
    for number, step in enumerate(steps):
        seen = next((e for e in chain if e.vectoring is not None and e.vectoring.vector == step.event.vector), None)
        prefix = f"delivering {_event(step.event)}: "
        attempt = Attempt(first.save, first.memory, step.event, first.physical_bits)
        if isinstance(step.outcome, Delivered):
            if seen is not None:
                lines.append(f"{prefix}{_what(seen)}, though nothing is found that would forbid it")
                return lines, False
            if number:
                lines.append(f"{prefix}its handler starts at {attempt.handler(step.outcome):#x}")
            return lines, True
        follows = step.outcome.event
        text = f"{prefix}{failure(attempt, step.outcome)}"
        if seen is not None and not _agrees(step, seen):
            lines.append(f"{text}; but the processor says: {_what(seen)}")
            return lines, False
        if follows is not None:
            text += f" -> {follows if seen is None or seen.event is None else seen.event}"
            text += " -> #DF" if isinstance(step.follows, Event) and step.follows.vector != follows.vector else ""
        lines.append(text)
        if seen is not None and seen.becomes is SHUTDOWN:
            break
    return lines, True


def _what(evidence: Evidence) -> str:
    return "the processor shut down" if evidence.event is None else f"{evidence.event} was raised"


def _agrees(step: Step, seen: Evidence) -> bool:
    if seen.event is None or not isinstance(step.outcome, Failed):
        return seen.event is None and step.follows is SHUTDOWN
    raised_by_model = {event.vector for event in (step.outcome.event, step.follows) if isinstance(event, Event)}
    if step.outcome.check is delivery.checks.PUSH_ADDRESS:
        raised_by_model.add(Vector.GP)  # what some processors raise for a stack that is not canonical
    if seen.event.vector not in raised_by_model:
        return False
    return seen.address is None or step.outcome.address in (None, seen.address)


def _causes(attempt: Attempt, evidence: Evidence, outcome: Delivered | Failed) -> Iterator[tuple[Finding, Change]]:
    """Yield the findings that are proven to have kept the first event from its handler, with what mends them."""
    if isinstance(outcome, Delivered):
        return
    for finding in concatenated(_unreachable(attempt, evidence), _repeated(attempt, evidence, outcome)):
        proven = _proven(attempt, finding)
        if proven is not None:
            yield finding, proven
            return
    found = list(_findings(attempt, outcome))
    for finding, changes in found:
        tried = list(changes)
        for change in tried:
            if attempt.changed(change).succeeds():
                yield finding, change
                return
        for change in tried[:_TRIED]:
            second = _second(attempt, attempt.changed(change))
            if second is not None and not attempt.changed(second[1]).succeeds():
                yield finding, change
                yield second
                return


def _findings(attempt: Attempt, failed: Failed) -> Iterator[tuple[Finding, Iterable[Change]]]:
    for finding in concatenated(gates.findings(attempt, failed), stacks.findings(attempt, failed)):
        yield finding, finding.changes


def _second(before: Attempt, attempt: Attempt) -> tuple[Finding, Change] | None:
    """Return what is wrong with the stack once the first fault is mended, on the stack that it was to be all along."""
    outcome = attempt.deliver()
    known = before.descriptor(before.selector) is not None
    if isinstance(outcome, Delivered) or (known and before.slot() != attempt.slot()):
        return None
    for finding in stacks.findings(attempt, outcome):
        for change in islice(finding.changes, 4 * _TRIED):
            if attempt.changed(change).succeeds():
                return finding, change
    return None


def _proven(attempt: Attempt, finding: Finding) -> Change | None:
    return next((change for change in finding.changes if attempt.changed(change).succeeds()), None)


def _unreachable(attempt: Attempt, evidence: Evidence) -> Iterator[Finding]:
    """A handler that cannot be fetched itself: each exception raises the next, until there is no stack left."""
    event = attempt.event
    fetches = event.vector == Vector.PF and evidence.first_address in (None, attempt.rip)
    strays = event.vector == Vector.GP and not attempt.space.is_canonical(attempt.rip)
    if event.type != EventType.EXCEPTION or not (fetches or strays) or attempt.rip != _handler_of(attempt):
        return
    reason = pages.why(attempt, attempt.rip, FETCH)
    if reason is None:
        return
    for finding in gates.legacy_layout(attempt):
        yield finding._replace(changes=_reachable(attempt, finding.changes))
    high = attempt.rip | ~0xFFFF_FFFF & attempt.space.mask
    truncated = ""
    if attempt.long and attempt.rip >> 31 == 1 and attempt.translate(high, FETCH) is not None:
        truncated = f" The gate lacks the upper half of {high:#x}."
    yield Finding(
        f"the handlers cannot be reached: that of {mnemonic(event.vector)} is at {attempt.rip:#x}, which is {reason}. "
        f"Each {mnemonic(event.vector)} raises the next, until the stack is full.{truncated}",
        _reachable(attempt, repairs.own_gate(attempt)),
    )


def _handler_of(attempt: Attempt) -> int | None:
    """Return the linear address in the gate of the event, where it has one."""
    if attempt.real:
        return None
    high = (attempt.read(attempt.gate_gva + 8, 4) or 0) if attempt.long else 0
    descriptor = attempt.descriptor(attempt.selector)
    if descriptor is None:
        return None
    return (0 if attempt.long else base(descriptor)) + (gate_offset_32(attempt.gate) | high << 32) & attempt.space.mask


def _reachable(attempt: Attempt, gates: Iterable[Change]) -> Iterator[Change]:
    """Yield the handler mapped, or another gate, and the stack as it was before it was full."""
    page = pages.mapped(attempt, attempt.rip, FETCH)
    changes = [] if page is None else [page._replace(text=f"with the handler's page mapped ({page.text})")]
    changes += gates
    for stack in repairs.new_stack(attempt):
        for change in changes:
            yield change._replace(registers={**stack.registers, **change.registers})


def _repeated(attempt: Attempt, evidence: Evidence, outcome: Failed) -> Iterator[Finding]:
    """A handler that raises its own exception: frames of the same RIP fill the stack."""
    if outcome.check is not delivery.checks.PUSH_PAGE or attempt.slot() is not None or not attempt.long:
        return
    i = Instruction(attempt, evidence.gprs)
    stack = [i.stack(number, 8) for number in range(STACK_WORDS)]
    pair = (attempt.save.rip, attempt.save.cs.selector)
    frames = [at for at in range(len(stack) - 1) if (stack[at], stack[at + 1]) == pair]
    strides = {after - before for before, after in pairwise(frames)}
    if len(frames) < 3 or len(strides) != 1:
        return
    name = mnemonic(attempt.event.vector)
    yield Finding(
        f"the handler of {name} raises {name} itself, at {place(attempt)}, again and again, until the stack is full.",
        repairs.new_stack(attempt),
    )


def _known(attempt: Attempt, outcome: Delivered | Failed, *, agrees: bool) -> str:
    if not agrees:
        return "The processor and the model of delivery disagree; no cause is proven."
    if isinstance(outcome, Delivered):
        return f"{attempt.event} was delivered."
    return (
        f"The first check that failed: {failure(attempt, outcome)} [APM vol. 2, {outcome.check.section}]. "
        "No single change is found that makes the delivery work."
    )
