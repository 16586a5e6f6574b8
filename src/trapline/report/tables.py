"""The answers to questions about traces as tables of text."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from trapline.arch.vectors import mnemonic
from trapline.symbols import place_in
from trapline.trace.column import Kind
from trapline.trace.questions.groups import Groups, Value, is_address
from trapline.trace.questions.over_time import OverTime
from trapline.trace.questions.totals import Rate, Totals
from trapline.trace.schema import COLUMNS

_BAR: Final = 16
"""Characters of the longest bar."""


class Table(NamedTuple):
    """Rows of text under heads."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[int, ...]
    """The columns of numbers."""
    note: str | None = None
    """A line below."""


def of_groups(answer: Groups) -> Table:
    """Return a row for each group."""
    columns = [_column(key, answer) for key in answer.keys]
    shown = [(head, cells) for column in columns for head, cells in column]
    rows = [
        (
            _share(group.times, answer.total),
            f"{group.times:,}",
            *(cells[place] for _, cells in shown),
            f"{group.first:,}",
            f"{group.last:,}",
        )
        for place, group in enumerate(answer.groups)
    ]
    last = 2 + len(shown)
    heads = ("share", "count", *(head for head, _ in shown), "first record", "last record")
    return Table(heads, rows, (0, 1, last, last + 1), _note(answer))


def of_totals(answer: Totals, rate: Rate) -> Table:
    """Return a row for each vector."""
    rows = []
    for row in answer.vectors:
        often = rate.of(row.times, answer.ticks)
        rows.append(
            (
                exception(row.vector),
                f"{row.times:,}",
                _share(row.times, answer.total),
                _often(often),
                f"{row.kernel:,}",
                f"{row.user:,}",
                f"{row.first:,}",
                f"{row.last:,}",
            )
        )
    heads = ("exception", "count", "share", f"per {rate.name}", "kernel", "user", "first record", "last record")
    return Table(heads, rows, tuple(range(1, 8)))


def of_time(answer: OverTime) -> Table:
    """Return a row for each interval, with a bar and the counts of the vectors that have the most."""
    most = max((interval.times for interval in answer.intervals), default=1)
    rows = [
        (
            f"{interval.first:,}",
            f"{interval.times:,}",
            "#" * -(-_BAR * interval.times // most),
            _vectors(interval.vectors),
        )
        for interval in answer.intervals
    ]
    head = "from time stamp" if answer.column == "tsc" else "from record"
    return Table((head, "count", "", "exceptions"), rows, (0, 1))


def exception(vector: int) -> str:
    """Return the name and the number of a vector."""
    return f"{mnemonic(vector)} ({vector})"


def cell(name: str, value: Value) -> str:
    """Return a value of a column; a missing one is a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return "yes" if value is True else "no" if value is False else value
    column = COLUMNS.get(name)
    if column is not None and column.kind is Kind.VECTOR:
        return mnemonic(value)
    return f"{value:#x}" if is_address(name) else f"{value:,}"


def place(symbol: str | None, offset: int | None) -> str:
    """Return a place as `memset+0x1a`; a dash where no symbol is known."""
    return "-" if symbol is None else place_in(symbol, offset)


_HEADS: Final = {"vector": "exception", "symbol": "function"}


def _column(key: str, answer: Groups) -> list[tuple[str, list[str]]]:
    """Return the heads and the cells of a key's columns."""

    def values(name: str) -> list[Value]:
        at = answer.values.index(name)
        return [group.values[at] for group in answer.groups]

    if key == "rip":
        symbols, offsets, sources = values("symbol"), values("symbol_offset"), values("source")
        columns = [("RIP", [cell("rip", value) for value in values("linear_rip")])]
        if any(symbols):
            columns.append(("place", [place(*pair) for pair in zip(symbols, offsets, strict=True)]))  # type: ignore[arg-type]
        if any(sources):
            columns.append(("source", [cell("source", value) for value in sources]))
        return columns
    cells = [cell(key, value) for value in values(key)]
    if key == "symbol":
        addresses = values("linear_rip")
        cells = [cell("rip", at) if text == "-" else text for text, at in zip(cells, addresses, strict=True)]
    return [(_HEADS.get(key, key), cells)]


def _note(answer: Groups) -> str | None:
    notes = []
    if answer.distinct > len(answer.groups):
        notes.append(f"{len(answer.groups):,} of {answer.distinct:,} groups; --limit shows more")
    if not answer.complete:
        notes.append("groups with few exceptions were left out of the counts: there are too many")
    return "; ".join(notes) or None


def _often(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}" if rate >= 1 else f"{rate:.2g}"


def _share(times: int, total: int) -> str:
    return f"{100 * times / total:.2f} %"


def _vectors(counts: dict[int, int], most: int = 3) -> str:
    ordered: Sequence[tuple[int, int]] = sorted(counts.items(), key=lambda pair: -pair[1])
    texts = [f"{mnemonic(vector)} {times:,}" for vector, times in ordered[:most]]
    return ", ".join(texts) + (", ..." if len(ordered) > most else "")
