"""The groups of values of the stopped guest: registers, the exception, the descriptor tables and page walks."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from trapline.debugger import registers, tables
from trapline.debugger.registers import Group
from trapline.debugger.target import Target
from trapline.errors import TraplineError
from trapline.explain.pictures.values import Entry, Field, State, Table
from trapline.machine.linear import stack_address

from .debuggee import Debuggee
from .memory import PHYSICAL
from .variables import Children, Item

_TABLES: Final = {"IDT": tables.idt, "GDT": tables.gdt, "LDT": tables.ldt, "TSS": tables.tss}


class Scope(NamedTuple):
    """A group."""

    name: str
    children: Children
    costly: bool
    """A client shows it only when it is opened."""
    hint: str | None


def scopes_of(debuggee: Debuggee) -> Iterator[Scope]:
    """Yield the groups."""
    target, exception = debuggee.target, debuggee.target.exception
    groups = [group for group in Group if group is not Group.EXCEPTION]
    for group in groups:
        yield Scope(group.value, partial(_registers, debuggee, group), group is not Group.GENERAL, "registers")
    if exception is not None:
        yield Scope(Group.EXCEPTION.value, partial(_registers, debuggee, Group.EXCEPTION), False, None)
    for name, read in _TABLES.items():
        yield Scope(name, partial(_table, debuggee, read), True, None)
    save = target.cpu.vcpu.save
    walks = {"RIP": target.cpu.address, "RSP": stack_address(save), "CR2": save.cr2}
    if exception is not None and exception.address is not None:
        walks["the fault address"] = exception.address
    for name, address in walks.items():
        yield Scope(f"Page walk of {name}", partial(_walk, debuggee, address), True, None)


def _registers(debuggee: Debuggee, group: Group) -> list[Item]:
    target, found = debuggee.target, []
    for register in registers.group_of(group):
        value = registers.read(target, register)
        if value is not None:
            text = debuggee.named(value) if register.name == "rip" else f"{value:#x}"
            expression = register.name if register.writable else None
            found.append(Item(register.name, text, None, expression, f"{value:#x}" if register.bits == 64 else None))
    return found


def _table(debuggee: Debuggee, read: Callable[[Target], Table]) -> list[Item]:
    try:
        table = read(debuggee.target)
    except TraplineError as error:
        return [Item("none", str(error.args[0]))]
    head = [Item("base", f"{table.base:#x}", memory=f"{table.base:#x}"), Item("limit", f"{table.limit:#x}")]
    return head + [_entry(entry) for entry in table.entries if entry.state is not State.EMPTY]


def _entry(entry: Entry) -> Item:
    text = entry.text if entry.state in (State.GOOD, State.ABSENT) else f"{entry.text} ({entry.state.value})"
    children = partial(_fields, entry.fields) if entry.fields else None
    return Item(entry.label, text, children, memory=f"{entry.address:#x}")


def _fields(fields: Sequence[Field]) -> list[Item]:
    return [Item(field.name, field.value) for field in fields]


def _walk(debuggee: Debuggee, address: int) -> list[Item]:
    walk = tables.walk(debuggee.target, address)
    found = [Item("address", debuggee.named(walk.address), memory=f"{walk.address:#x}"), Item("cr3", f"{walk.cr3:#x}")]
    for entry in walk.entries:
        text = f"{entry.value:#x}, entry {entry.place}"
        found.append(Item(entry.name, text, partial(_fields, entry.flags), memory=f"{PHYSICAL}{entry.gpa:#x}"))
    if walk.gpa is None:
        return [*found, Item("denied", walk.denied or "")]
    physical = Item("physical", f"{walk.gpa:#x}", memory=f"{PHYSICAL}{walk.gpa:#x}")
    return [*found, physical, Item("permits", ", ".join(walk.rights))]
