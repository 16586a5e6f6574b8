"""Observers see an intercepted exception before the guest does, and decide what to do with it."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from trapline.arch.vectors import bits

from .delivery import check_decision
from .exception import Decision, InterceptedException, Verdict
from .vcpu import Vcpu

log = logging.getLogger(__name__)

_FORWARD: Final = Verdict.FORWARD


class Observer(Protocol):
    """Sees exceptions before delivery."""

    @property
    def vectors(self) -> int:
        """The vectors that it is asked about, as a mask."""

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Decision | None:
        """Decide about an exception; None forwards it."""


class Observers:
    """The observers of a VM. One that raises, or returns no decision, is removed and logged; the guest continues."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._observers: list[Observer] = []
        self._changed = changed
        self.failures: list[tuple[Observer, Exception]] = []
        """The observers that were removed, each with what it raised."""
        self.vectors = 0
        """The vectors that some observer is asked about, as a mask."""
        self._asked: dict[int, tuple[Observer, ...]] = {}
        """The observers to ask, by vector."""

    def add(self, observer: Observer) -> None:
        """Ask an observer too, from the next exit on."""
        self._observers.append(observer)
        self._recalc()

    def remove(self, observer: Observer) -> None:
        """Stop asking an observer. Raises ValueError if it was not added."""
        self._observers.remove(observer)
        self._recalc()

    def ask(self, vcpu: Vcpu, exit: InterceptedException) -> Decision:
        """Return the first decision that is not FORWARD."""
        for observer in self._asked.get(exit.event.vector, ()):
            try:
                answer = observer.exception(vcpu, exit)
                if answer is _FORWARD or answer is None:
                    continue
                decision = check_decision(vcpu, answer)
            except Exception as error:
                log.exception("the observer %r failed and was removed", observer)
                self.failures.append((observer, error))
                if observer in self._observers:  # it may have removed itself before it failed
                    self.remove(observer)
            else:
                return decision
        return _FORWARD

    def _recalc(self) -> None:
        self.vectors = 0
        for observer in self._observers:
            self.vectors |= observer.vectors
        self._asked = {
            vector: tuple(observer for observer in self._observers if observer.vectors >> vector & 1)
            for vector in bits(self.vectors)
        }
        self._changed()
