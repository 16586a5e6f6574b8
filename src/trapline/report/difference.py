"""The difference of two traces as text and as JSON."""

from collections.abc import Iterator
from typing import Any, Final

from trapline.arch.vectors import mnemonic
from trapline.machine.record import GENERAL
from trapline.trace.diff import Change, Count, CutOff, Difference, Kind
from trapline.trace.diff.randomised import Randomised
from trapline.trace.exception_record import line_of
from trapline.trace.questions.rows import Row

from .counted import counted
from .tables import Table

_REGISTERS: Final = (
    *("cpl", "cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6"),
    *GENERAL,
)
_PARTS: Final = {
    Kind.NEW: "the second trace has a new one",
    Kind.GONE: "the second trace lacks one",
    Kind.MOVED: "one moved",
    Kind.CHANGED: "the second trace has another one",
}


def summary(found: Difference) -> str:
    """Return in a line whether two traces are the same."""
    if found.same:
        return f"same: {counted(found.common, 'exception')}"
    parts = [
        ", ".join(f"{getattr(found, kind.value):,} {kind.value}" for kind in Kind),
        f"{found.common:,} in common",
    ]
    if found.states is not None:
        parts.append(f"{found.states.times:,} of them in another state")
    if (at := found.parting) is not None:
        row = at.a if at.b is None or (at.kind is Kind.GONE and at.a is not None) else at.b
        assert row is not None
        where = f"record {row.seq:,} of the {'first' if row is at.a else 'second'}"
        parts.append(f"they part after {at.common:,}, at {where}: {line_of(row)}")
    return f"different: {'; '.join(parts)}"


def headline(found: Difference) -> str:
    """Return the same for the top of a text that has the rest below."""
    if found.same or found.parting is None:
        return summary(found)
    return summary(found).partition("; they part")[0]


def text(found: Difference) -> Iterator[str]:
    """Yield the lines of a difference, but for the counts that changed."""
    yield headline(found)
    if found.cut_off is not None:
        yield _cut_off(found.cut_off)
    for each in found.randomised:
        yield _compared(each)
    if (at := found.parting) is not None:
        yield ""
        yield f"they part after {counted(at.common, 'exception')}: {_PARTS[at.kind]}"
        if at.before is not None:
            yield f"  both  {_numbered(at.before[1])}"
        yield f"  A     {_numbered(at.a)}"
        yield f"  B     {_numbered(at.b)}"
        if at.before is not None and (names := [name for name, _, _ in differing(*at.before)]):
            yield f"already before, other values of {', '.join(names)}"
        if at.a is not None and at.b is not None:
            yield from _registers(at.a, at.b)
    if found.states is not None:
        times = found.states.times
        yield ""
        yield f"{counted(times, 'exception')} that both have in another state, first"
        yield f"  A     {_numbered(found.states.a)}"
        yield f"  B     {_numbered(found.states.b)}"
        yield from _registers(found.states.a, found.states.b)
    if found.changes:
        whole = found.new + found.gone + found.moved + found.changed
        yield ""
        yield (
            "differences" if whole == len(found.changes) else f"the first {len(found.changes)} of {whole:,} differences"
        )
        for change in found.changes:
            yield from _change(change)


def counts(found: Difference) -> Table | None:
    """Return the exceptions that were raised more or less often; None: there are none."""
    if not found.recounted:
        return None
    rows = [
        (mnemonic(row.vector), _place(row), _code(row), f"{a:,}", f"{b:,}", f"{b - a:+,}")
        for row, a, b in found.recounted
    ]
    left = found.recounted_in_all - len(rows)
    note = f"{left:,} more have another count" if left else None
    return Table(("exception", "place", "error code", "A", "B", "change"), rows, (3, 4, 5), note)


def document(found: Difference) -> dict[str, Any]:
    """Return a difference for JSON."""
    at, states = found.parting, found.states
    return {
        "version": 1,
        "same": found.same,
        "records": list(found.counts),
        "common": found.common,
        **{kind.value: getattr(found, kind.value) for kind in Kind},
        "parting": at
        and {
            "common": at.common,
            "kind": at.kind.value,
            "before": at.before and [_record(row) for row in at.before],
            "a": _record(at.a),
            "b": _record(at.b),
            "differing": _pairs(at.a, at.b),
        },
        "states": states
        and {
            "count": states.times,
            "a": _record(states.a),
            "b": _record(states.b),
            "differing": _pairs(states.a, states.b),
        },
        "cut_off": found.cut_off and {"a": found.cut_off.a, "b": found.cut_off.b, "starts": list(found.cut_off.starts)},
        "changes": [{"kind": each.kind.value, "a": _record(each.a), "b": _record(each.b)} for each in found.changes],
        "counts": [_count(each) for each in found.recounted],
        "counts_in_all": found.recounted_in_all,
        "compared_by_name": found.names,
        "randomised": [
            {"half": "upper" if each.half else "lower", "slide": None if each.slide is None else f"{each.slide:#x}"}
            for each in found.randomised
        ],
    }


def differing(a: Row, b: Row) -> list[tuple[str, int, int]]:
    """Return the registers that differ and that both records have, with the values of both."""
    values = zip(_REGISTERS, _values(a), _values(b), strict=True)
    return [(name, one, two) for name, one, two in values if one is not None and two is not None and one != two]


def _values(row: Row) -> tuple[int | None, ...]:
    own = (getattr(row, name) for name in _REGISTERS[: -len(GENERAL)])
    return (*own, *(row.registers or (None,) * len(GENERAL)))


def _registers(a: Row, b: Row) -> Iterator[str]:
    for name, one, two in differing(a, b):
        yield f"  {name:<7} {one:#x} -> {two:#x}"


def _change(change: Change) -> Iterator[str]:
    kind = f"  {change.kind.value:<8}"
    if change.a is not None and change.b is not None and change.kind is Kind.MOVED:
        yield f"{kind}A {change.a.seq:,} -> B {change.b.seq:,}  {line_of(change.b)}"
        return
    if change.a is not None:
        yield f"{kind}A {_numbered(change.a)}"
        kind = " " * len(kind)
    if change.b is not None:
        yield f"{kind}B {_numbered(change.b)}"


def _cut_off(left: CutOff) -> str:
    start, other = left.starts
    return (
        f"from exception {start:,} of the first and {other:,} of the second on they have so little in common that "
        f"{left.a:,} and {left.b:,} were not aligned: what both have of them counts as moved"
    )


def _compared(each: Randomised) -> str:
    half = "upper" if each.half else "lower"
    if each.slide is None:
        return f"addresses in the {half} half are randomised: they were compared by their offset in a page"
    slide = each.slide - (1 << 64) if each.slide >> 63 else each.slide
    where = "above" if slide > 0 else "below"
    return f"addresses in the {half} half: those of the second trace are {abs(slide):#x} {where}, which does not count"


def _numbered(row: Row | None) -> str:
    return "has ended" if row is None else f"{row.seq:,}  {line_of(row)}"


def _place(row: Row) -> str:
    address = row.rip if row.linear_rip is None else row.linear_rip
    return row.symbol or ("-" if address is None else f"{address:#x}")


def _code(row: Row) -> str:
    return "-" if row.error_code is None else f"{row.error_code:#x}"


def _count(count: Count) -> dict[str, Any]:
    row = count.example
    code = {} if row.error_code is None else {"error_code": row.error_code}
    return {
        "vector": row.vector,
        "name": mnemonic(row.vector),
        "place": _place(row),
        **code,
        "a": count.a,
        "b": count.b,
    }


def _pairs(a: Row | None, b: Row | None) -> dict[str, list[str]]:
    if a is None or b is None:
        return {}
    return {name: [f"{one:#x}", f"{two:#x}"] for name, one, two in differing(a, b)}


def _record(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    found: dict[str, Any] = {"seq": row.seq, "vector": row.vector, "name": mnemonic(row.vector)}
    found |= {"error_code": row.error_code, "address": _hex(row.address), "place": _place(row)}
    values = zip(_REGISTERS, _values(row), strict=True)
    return found | {name: _hex(value) if name != "cpl" else value for name, value in values if value is not None}


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
