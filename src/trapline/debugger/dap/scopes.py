"""The groups of values of the stopped guest: registers, the exception, the descriptor tables and page walks."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from trapline.debugger import registers
from trapline.debugger.registers import Group

from .debuggee import Debuggee
from .variables import Children, Item


class Scope(NamedTuple):
    """A group."""

    name: str
    children: Children
    costly: bool
    """A client shows it only when it is opened."""
    hint: str | None


def scopes_of(debuggee: Debuggee) -> Iterator[Scope]:
    """Yield the groups."""
    for group in Group:
        if group is not Group.EXCEPTION:
            yield Scope(group.value, partial(_registers, debuggee, group), group is not Group.GENERAL, "registers")
        elif debuggee.target.stop.exception is not None:
            yield Scope(group.value, partial(_registers, debuggee, group), False, None)


def _registers(debuggee: Debuggee, group: Group) -> list[Item]:
    target, found = debuggee.target, []
    for register in registers.group_of(group):
        value = registers.read(target, register)
        if value is not None:
            text = debuggee.named(value) if register.name == "rip" else f"{value:#x}"
            expression = register.name if register.writable else None
            found.append(Item(register.name, text, None, expression, f"{value:#x}" if register.bits == 64 else None))
    return found
