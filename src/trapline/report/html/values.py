"""What a page shows. All text may come from the guest: the templates escape it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trapline.explain.explanation import Explanation
from trapline.explain.pictures import Pictures
from trapline.symbols import Symbol
from trapline.trace.overview import Overview


class Fact(NamedTuple):
    """A line of the summary."""

    name: str
    value: str


class Explained(NamedTuple):
    """An explanation, with what it is of."""

    title: str
    explanation: Explanation
    pictures: Pictures


class Section(NamedTuple):
    """A further section: a template in `templates`, which gets `values`."""

    name: str
    """The identifier in the page, and the template without its suffix."""
    title: str
    values: object


@dataclass(frozen=True, kw_only=True)
class Page:
    """A trace, as the page shows it."""

    title: str
    """The guest."""
    ending: str | None = None
    """How the run ended, in one sentence; None: the trace does not tell."""
    failed: bool = False
    """Whether the guest ended badly."""
    facts: Sequence[Fact] = ()
    """Command line, mask, processor, versions and the like."""
    overview: Overview
    """The records, counted."""
    tsc_frequency: int | None = None
    """Ticks of the time stamp counter in a second; None: unknown."""
    lookup: Callable[[int], Symbol | None] | None = None
    """Names linear addresses, before the names that the records have; None: no symbols were given."""
    explained: Sequence[Explained] = ()
    """Double and triple faults, and the exceptions that the guest never came back from."""
    last: Sequence[Mapping[str, object]] = ()
    """The last records, oldest first: values by the names of `trace.schema.COLUMNS`."""
    sections: Sequence[Section] = ()
    """Further sections, as the difference from another trace."""
