"""The data of the timeline, for the script in the page."""

from typing import Any, Final

from trapline.arch.error_codes import describe_error_code
from trapline.arch.vectors import mnemonic
from trapline.trace.overview import Axis, Overview, Rare, pack
from trapline.typed import printable

from .decode import Lookup, place_of

_ROOM: Final = 700_000
"""Characters for the counts of an axis."""
_NANOSECONDS: Final = 1_000_000_000


def timeline(overview: Overview, lookup: Lookup | None, frequency: int | None) -> dict[str, Any]:
    """Return the axes, and the exceptions of rare vectors one by one; numbers are relative to an axis's least value.

    `frequency`: the ticks of a second; None: unknown.

    Text in it may come from the guest: JSON in a page needs `<` escaped, which `tojson` does.
    """
    whole = {row.vector for row in overview.rare}
    lanes = [
        {"vector": total.vector, "name": mnemonic(total.vector), "times": total.times, "whole": total.vector in whole}
        for total in overview.vectors
    ]
    binned = tuple(total.vector for total in overview.vectors if total.vector not in whole)
    named = (
        ("tsc", "time (TSC)" if frequency is None else "time", overview.tsc),
        ("seq", "record number", overview.seq),
    )
    axes = [
        {"title": title, "tick": _NANOSECONDS / frequency if frequency and name == "tsc" else None}
        | _axis(name, axis, binned, overview.rare)
        for name, title, axis in named
        if axis is not None
    ]
    return {
        "total": overview.total,
        "lanes": lanes,
        "axes": axes,
        "rare": [_rare(row, lookup) for row in overview.rare],
    }


def _axis(name: str, axis: Axis, vectors: tuple[int, ...], rare: tuple[Rare, ...]) -> dict[str, Any]:
    packed = pack(axis, vectors, _ROOM)
    axis = packed.axis
    values = [getattr(row, name) for row in rare]
    return {
        "name": name,
        "least": str(axis.least),
        "span": axis.most - axis.least,
        "start": (axis.first << axis.shift) - axis.least,
        "width": 1 << axis.shift,
        "bins": packed.bins,
        "vectors": list(packed.vectors),
        "data": packed.data,
        "rare": [None if value is None else value - axis.least for value in values],
    }


def _rare(row: Rare, lookup: Lookup | None) -> dict[str, Any]:
    place, source = place_of(row._asdict(), lookup)
    parts = [f"{mnemonic(row.vector)}, record {row.seq:,}", place, source]
    if row.address is not None:
        parts.append(f"address {row.address:#x}")
    if row.error_code is not None:
        parts.append(f"error {row.error_code:#x}: {describe_error_code(row.vector, row.error_code)}")
    return {"vector": row.vector, "text": printable(", ".join(filter(None, parts)))}
