"""The accesses of a chain that page tables denied."""

from collections.abc import Sequence

from trapline.arch.delivery import Failed, Step
from trapline.arch.events import EventType
from trapline.arch.vectors import Vector

from . import pages
from .attempt import Attempt
from .evidence import Evidence
from .page_faults import page_access
from .tables import Access


def denied_accesses(evidence: Evidence, attempt: Attempt, steps: Sequence[Step]) -> list[Access]:
    """Return the access that raised the first exception, then those of the deliveries, each address once."""
    event, found = attempt.event, dict[int, Access]()
    if event.vector == Vector.PF and event.type == EventType.EXCEPTION and evidence.first_address is not None:
        access = page_access(attempt, event.error_code or 0, evidence.first_address)
        found[access.gva] = access
    for step in steps:
        failed = step.outcome
        if isinstance(failed, Failed) and failed.denied is not None:
            access = Access(*pages.failed_access(attempt, failed))
            found.setdefault(access.gva, access)
    return list(found.values())
