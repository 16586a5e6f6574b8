"""A table of figures as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .figures import YARDSTICKS, Table


def lines(table: Table) -> Iterator[str]:
    """Give the lines of a table.

    They have the median of each candidate, its spread and its ratio to each that it is compared with, then the same of
    processor time, then what one exception takes.
    """
    heads = "".join(f"{'/ ' + peer:>20}" for peer in table.against)
    yield f"{table.title}"
    yield f"{'':<36}{'median':>9}{'from':>10}{'to':>9}{heads}{'CPU':>11}{heads}".rstrip()
    for name, rounds in table.rounds.items():
        seconds, used = table.median(name), table.median(name, "used")
        columns = [f"  {name:<34}{seconds:>9.2f} s{min(rounds.seconds):>8.2f}{max(rounds.seconds):>9.2f}"]
        columns += [f"{table.ratio(name, peer):>20.2f}" for peer in table.against]
        columns += [f"{used:>9.2f} s", *(f"{table.ratio(name, peer, 'used'):>20.2f}" for peer in table.against)]
        yield "".join(columns) + "".join(f"  {note}" for note in _notes(table, name))
    for name in table.shares:
        yield f"  one of {name}: {_share(table, name)}"


def _notes(table: Table, name: str) -> Iterator[str]:
    if memory := table.rounds[name].memory:
        yield f"{int(statistics.median(memory)) >> 20} MiB"
    for what, count in table.counts.get(name, {}).items():
        yield f"{count:,} {what}"


def _share(table: Table, name: str) -> str:
    share = table.share(name)
    parts = [f"{share * 1e6:.2f} us", f"{1 / share:,.0f} a second"]
    parts += [f"{share / table.unit(yardstick):.1f} times {yardstick}" for yardstick in YARDSTICKS]
    peers = (peer for peer in table.against if peer in table.shares and peer != name)
    parts += [f"{share / table.share(peer):.2f} times {peer}" for peer in peers]
    return ", ".join(parts)
