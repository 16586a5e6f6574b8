"""A storm: the same exception of the same instruction again and again, which each time finds the same registers."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from trapline.arch.registers import DR7, RFLAGS
from trapline.arch.vectors import Vector
from trapline.trace.exception_record import ExceptionRecord

from .explanation import Explanation

_LEAST: Final = 32
"""In a row, to be called a storm: a guest may try something a few times."""
_CHAIN: Final = 4
"""The most exceptions that one instruction raises in turn: one, two in deliveries that fail, and the #DF of these."""
_BREAKPOINTS: Final = 4


class Storm(NamedTuple):
    """The last exceptions are all the same, or a few in turn, each raised while the one before was delivered."""

    record: ExceptionRecord
    """The latest whose handler returned."""
    times: int
    """How many like it in a row were looked at."""
    explained: ExceptionRecord
    """The one that tells why: itself, or the first that was raised by a delivery."""


def storm(records: Sequence[ExceptionRecord]) -> Storm | None:
    """Return the storm in which records end; None: they do not end in one."""
    for count in range(1, _CHAIN + 1):
        last = records[-count:]
        if len({(record.cs, record.rip) for record in last}) > 1:
            break
        starts = [at for at, each in enumerate(last) if each.vectoring is None and not each.synthesized]
        if count == 1:
            starts = [0]  # what it was raised in the delivery of may not be recorded
        times = _repeats(records, count)
        if len(starts) == 1 and times * count >= _LEAST:
            start = starts[0]
            return Storm(last[start - 1], times, last[(start + 1) % count])
    return None


def _repeats(records: Sequence[ExceptionRecord], count: int) -> int:
    """Return how often the last records, so many, come in a row at the end."""
    states, times = [_state(record) for record in records[-count:]], 1
    for end in range(len(records) - count, count - 1, -count):
        if [_state(record) for record in records[end - count : end]] != states:
            break
        times += 1
    return times


def _state(record: ExceptionRecord) -> tuple[object, ...]:
    return (
        *(record.vector, record.error_code, record.address, record.cs, record.rip, record.ss, record.rsp),
        *(record.rflags & ~RFLAGS.RF, record.cr3, record.registers),
    )


def describe_storm(found: Storm, total: int, explanation: Explanation | None, dr7: int) -> str:
    """Say what is raised, where, how often and why it comes back.

    `total` is how often its vector was recorded; the explanation is that of its exception, with memory as it is now.
    """
    record = found.record
    name, origin = record.vector.mnemonic, None if explanation is None else explanation.origin
    place = f"{record.cs:04x}:{record.rip:x}" if record.symbol is None else str(record.symbol)
    text = f"{name} at {place} is raised again and again: the last {found.times} times with the same registers, "
    text += f"{total:,} {name} in all. Its handler returns to the same instruction"
    breakpoint_ = _breakpoint(record, dr7)
    if breakpoint_ is not None:
        return (
            f"{text} with RFLAGS.RF clear, so that the execution breakpoint of DR{breakpoint_} fires again before it."
        )
    why = None if origin is None else origin.detail
    if explanation is not None and explanation.causes:
        why = explanation.cause.removesuffix(".")
    return f"{text}." if why is None else f"{text}, and at the end nothing has changed: {why}."


def _breakpoint(record: ExceptionRecord, dr7: int) -> int | None:
    """Return the number of the execution breakpoint that raised a #DB (APM vol. 2, 13.1.1.3, 13.1.1.4)."""
    if record.vector is not Vector.DB:
        return None
    for number in range(_BREAKPOINTS):
        if record.dr6 >> number & 1 and not dr7 >> DR7.CONDITIONS_SHIFT + 4 * number & 3:
            return number
    return None
