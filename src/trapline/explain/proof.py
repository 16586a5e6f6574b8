"""Proves causes: a cause is named only if the model delivers the event with one change, and its handler can be fetched.

Where two things are wrong, both are named if changing both delivers the event and changing one does not.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from trapline.arch.delivery import Delivered, Failed

from . import gates, loops, pages, segments, stacks, tables
from .attempt import Attempt, Change, Finding
from .evidence import Evidence

_TRIED: Final = 6
"""How many changes of a first finding are combined with a second one."""


def causes(attempt: Attempt, evidence: Evidence, outcome: Delivered | Failed) -> Iterator[tuple[Finding, Change]]:
    """Yield the findings that are proven, one or two, each with the change that proves it."""
    if isinstance(outcome, Delivered):
        return
    for finding in loops.findings(attempt, evidence, outcome):
        for change in finding.changes:
            if attempt.changed(change).succeeds():
                yield finding, change
                return
    for finding in _findings(attempt, outcome):
        tried = list(finding.changes)
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


def _findings(attempt: Attempt, failed: Failed) -> list[Finding]:
    found: list[Finding] = []
    if failed.denied is not None:
        found += tables.findings(attempt, tables.Access(*pages.failed_access(attempt, failed)))
    rooms = (gates, segments, stacks)
    return found + list(chain.from_iterable(room.findings(attempt, failed) for room in rooms))


def _second(before: Attempt, attempt: Attempt) -> tuple[Finding, Change] | None:
    """Return what is wrong with the stack after a first change; None if the change has moved the stack."""
    outcome = attempt.deliver()
    known = before.descriptor(before.selector) is not None
    if isinstance(outcome, Delivered) or (known and before.slot() != attempt.slot()):
        return None
    for finding in stacks.findings(attempt, outcome):
        for change in islice(finding.changes, 4 * _TRIED):
            if attempt.changed(change).succeeds():
                return finding, change
    return None
