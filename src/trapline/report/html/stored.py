"""The page of stored traces."""

import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from trapline.arch.events import SHUTDOWN
from trapline.arch.mask import format_mask
from trapline.asm.disassembler import instruction
from trapline.explain.stored import Explainable, evidence_of, explainable
from trapline.explain.unexplained import Unexplained
from trapline.symbols import Names
from trapline.symbols.loaded import LoadedImages
from trapline.trace import overview
from trapline.trace.files import open_trace
from trapline.trace.reading import Reading, Run
from trapline.trace.schema import COLUMNS
from trapline.trace.stored import Metadata

from .values import Explained, Fact, Page

_EXPLAINED: Final = 16
"""How many of the last double and triple faults are explained."""


class _Found(NamedTuple):
    run: str
    what: Explainable


def page_of(records: Reading, names: Names, *, syntax: str = "intel") -> Page:
    """Return what a page shows of chosen records of traces; `names` are of addresses. Raises UsageError.

    The explanations are of all evidence, whatever was chosen.
    """
    counted = overview.overview(records.batches(overview.COLUMNS))
    kept = deque(_explainable(records.runs), maxlen=_EXPLAINED)
    shown = partial(instruction, syntax=syntax)
    recorded = {place.address: place.symbol for place in counted.places if place.symbol is not None}

    def name(address: int) -> str | None:
        return names.text(address) or recorded.get(address)

    unexplained, images = Unexplained(), LoadedImages(names)

    def explained(found: _Found) -> Explained:
        what = found.what
        images.place(what.images)
        title = what.title if one else f"{found.run}, {what.title}"
        return Explained(title, what.explanation(name, shown, unexplained), what.pictures(name, unexplained))

    one = len(records.runs) == 1
    ending = _ending(kept[-1].what) if one and kept else None
    return Page(
        title=_title(records),
        ending=ending,
        failed=ending is not None,
        facts=tuple(_facts(records.runs[0].name, records.metadata) if one else ()),
        overview=counted,
        tsc_frequency=records.metadata.tsc_frequency if one else None,
        lookup=names.lookup if names.files else None,
        explained=[explained(each) for each in kept],
        last=_last(records, counted.newest) if one else (),
    )


def _title(records: Reading) -> str:
    if len(records.runs) > 1:
        return f"{len(records.runs):,} traces"
    return records.metadata.guest or Path(records.runs[0].name).name


def _explainable(runs: Iterable[Run]) -> Iterator[_Found]:
    for run in runs:
        with open_trace(run.path) as trace:
            for what in explainable(evidence_of(trace)):
                yield _Found(run.name, what)


def _ending(last: Explainable) -> str | None:
    """Return how the guest ended, as far as the evidence tells."""
    if last.delivered:
        return "The guest ended in the handler of an exception."
    return "The guest shut down: a triple fault." if last.chain[-1].becomes is SHUTDOWN else None


def _last(records: Reading, first: int) -> list[dict[str, Any]]:
    rows = deque[dict[str, Any]](maxlen=overview.NEWEST)
    for batch in records.batches(COLUMNS, first=first):
        rows.extend(batch.slice(max(batch.num_rows - overview.NEWEST, 0)).to_pylist())
    return list(rows)


def _facts(name: str, metadata: Metadata) -> Iterator[Fact]:
    """Yield what the file says of its run."""
    values = {
        "File": name,
        "Guest": ", ".join(filter(None, (metadata.guest, metadata.description))),
        "Forced": "" if metadata.exceptions is None else format_mask(metadata.exceptions),
        "Recorded": "" if metadata.where is None else f"where {metadata.where}",
        "Processor": ": ".join(filter(None, (metadata.processor, metadata.why))),
        "Versions": ", ".join(f"{key} {value}" for key, value in metadata.versions.items()),
        "Started": (metadata.started or "").replace("T", " ", 1).replace("+00:00", " UTC"),
        "Build ID": metadata.build_id or "",
        "TSC": "" if metadata.tsc_frequency is None else f"{metadata.tsc_frequency / 1e6:,g} MHz",
        "Command line": _command(metadata.command_line),
        "Symbols": ", ".join(
            each.name if each.slide is None else f"{each.name}@{each.slide}" for each in metadata.symbols
        ),
    }
    return (Fact(key, value) for key, value in values.items() if value)


def _command(words: Sequence[str]) -> str:
    """Return a command line without the folder of its program."""
    if not words:
        return ""
    program = Path(words[0])
    name = ("python", "-m", program.parent.name) if program.name == "__main__.py" else (program.name,)
    return shlex.join((*name, *words[1:]))
