"""Variables: names with values, some with children, and the numbers by which a client asks for the children."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from trapline.errors import UsageError

from . import bodies
from .arguments import Variables

Children: TypeAlias = Callable[[], Sequence["Item"]]
"""Reads the children of a variable when a client asks for them."""


class Item(NamedTuple):
    """A variable."""

    name: str
    value: str
    children: Children | None = None
    expression: str | None = None
    """What gives the same value, and what is set in its place; None: it cannot be set."""
    memory: str | None = None
    """A reference to memory that the value points at."""


class Containers:
    """The containers that a client knows, until the guest runs."""

    def __init__(self) -> None:
        self._first = 1
        self._containers: list[Children] = []

    def add(self, children: Children | None) -> int:
        """Return the number of a container; 0: there are no children."""
        if children is None:
            return 0
        self._containers.append(children)
        return self._first + len(self._containers) - 1

    def forget(self) -> None:
        """Forget all: their numbers are not used again."""
        self._first += len(self._containers)
        self._containers.clear()

    def items(self, reference: int) -> Sequence[Item]:
        """Return the children. Raises UsageError for what is not a container of the stopped guest."""
        if not self._first <= reference < self._first + len(self._containers):
            raise UsageError(f"{reference} is not a group of variables: the guest has run since")
        return self._containers[reference - self._first]()

    def item(self, reference: int, name: str) -> Item:
        """Return a child by its name. Raises UsageError where there is none."""
        found = next((item for item in self.items(reference) if item.name == name), None)
        if found is None:
            raise UsageError(f"{name!r}: there is no such variable")
        return found

    def answer(self, asked: Variables) -> bodies.Variables:
        """Return the children that were asked for."""
        items = self.items(asked.variables_reference)
        end = asked.start + asked.count if asked.count else len(items)
        return bodies.Variables([self._variable(item) for item in items[asked.start : end]])

    def _variable(self, item: Item) -> bodies.Variable:
        return bodies.Variable(
            item.name,
            item.value,
            self.add(item.children),
            evaluate_name=item.expression,
            memory_reference=item.memory,
        )
