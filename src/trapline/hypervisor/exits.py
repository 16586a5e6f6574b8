"""The table of exit handlers. Each exit code has one handler: a second one is an error when the table is built."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from trapline.arch.exits import exit_name

from .stop import Answer
from .vcpu import Vcpu

Handler: TypeAlias = Callable[[Vcpu], Answer]
"""Handles an exit. The guest resumes, or a Stop leaves the run loop."""


class ExitTable:
    """Handlers by exit code."""

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}

    def on(self, *codes: int | Iterable[int]) -> Callable[[Handler], Handler]:
        """Register the decorated handler for exit codes or ranges of them.

        Raises ValueError for a code that already has one.
        """

        def register(handler: Handler) -> Handler:
            for entry in codes:
                for code in (entry,) if isinstance(entry, int) else entry:
                    if code in self._handlers:
                        raise ValueError(f"{exit_name(code)} already has a handler")
                    self._handlers[code] = handler
            return handler

        return register

    def handlers(self) -> Mapping[int, Handler]:
        """Return the finished table, read-only."""
        return MappingProxyType(self._handlers)
