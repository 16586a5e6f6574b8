"""The tools that decode what a stopped CPU reads: `tables` and `page_walk`."""

from collections.abc import Callable, Iterable
from typing import Final

from trapline.debugger import tables as decode
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.explain.pictures import Field, State, Table
from trapline.typed import integer

from .looking import address_of
from .machine_answers import TableEntry, TablesAnswer, TableShown, WalkAnswer, WalkStep
from .machines import Held
from .small import page

_TABLES: Final[dict[str, Callable[[Target], Table]]] = {
    "idt": decode.idt,
    "gdt": decode.gdt,
    "ldt": decode.ldt,
    "tss": decode.tss,
}
_EACH: Final = 12
"""Entries of each table where all are shown."""


def tables(held: Held, name: str | None, limit: int, cursor: str | None) -> TablesAnswer:
    """Return one table, page by page, or the beginning of all. Raises UsageError."""
    number = held.stored.number
    if name is not None:
        skipped = 0 if cursor is None else integer(cursor, "cursor", 0, decode.DESCRIPTORS)
        shown, more = _shown(_TABLES[name](held.target), skipped, limit)
        following = f"{skipped + len(shown.entries)}" if more else None
        return TablesAnswer(machine=number, tables=[shown], missing=[], next_cursor=following)
    found: list[TableShown] = []
    missing: list[str] = []
    for each in _TABLES.values():
        try:
            found.append(_shown(each(held.target), 0, _EACH)[0])
        except UsageError as error:
            missing.append(str(error))
    return TablesAnswer(machine=number, tables=found, missing=missing)


def _shown(table: Table, skipped: int, limit: int) -> tuple[TableShown, bool]:
    used = [entry for entry in table.entries if entry.state is not State.EMPTY]
    entries = (
        TableEntry(
            label=entry.label,
            address=f"{entry.address:#x}",
            text=entry.text,
            state=entry.state.value,
            fields=_fields(entry.fields) or None,
        )
        for entry in used[skipped:]
    )
    shown, more = page(entries, limit)
    left = len(table.entries) - len(used)
    return TableShown(
        name=table.name, base=f"{table.base:#x}", limit=f"{table.limit:#x}", entries=shown, empty=left
    ), more


def _fields(fields: Iterable[Field]) -> str:
    return " ".join(f"{field.name}={field.value}" for field in fields)


def page_walk(held: Held, address: str) -> WalkAnswer:
    """Return the walk of an address. Raises UsageError."""
    at = address_of(held, address)
    walk, symbol = decode.walk(held.target, at), held.machine.lookup(at)
    return WalkAnswer(
        machine=held.stored.number,
        address=f"{walk.address:#x}",
        symbol=None if symbol is None else str(symbol),
        cr3=f"{walk.cr3:#x}",
        steps=[
            WalkStep(
                name=entry.name,
                place=entry.place,
                physical=f"{entry.gpa:#x}",
                value=f"{entry.value:#x}",
                flags=_fields(entry.flags),
                denies=entry.wrong,
            )
            for entry in walk.entries
        ],
        physical=None if walk.gpa is None else f"{walk.gpa:#x}",
        rights=list(walk.rights),
        denied=walk.denied,
    )
