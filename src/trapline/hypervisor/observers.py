"""Observers see every intercepted exception before the guest does, and decide what becomes of it."""

import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from trapline.arch.events import Event
from trapline.arch.vectors import bits

if TYPE_CHECKING:
    from .vcpu import Vcpu

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What is to become of an exception."""

    FORWARD = "forward"
    """Give it to the guest as it was: the default."""
    DISCARD = "discard"
    """The guest never sees it and goes on at the saved RIP."""
    STOP = "stop"
    """Leave the loop with the exception still undelivered; running on delivers it."""


_FORWARD: Final = Verdict.FORWARD


class ExceptionExit(NamedTuple):
    """An intercepted exception, as the hardware reported it."""

    event: Event
    vectoring: Event | None
    """What was being delivered when it was raised."""
    address: int | None
    """The faulting linear address of a #PF, which CR2 does not hold yet."""
    synthesized: bool = False
    """Raised by the hypervisor, not by the guest's instruction."""


class Observer(Protocol):
    """Sees exceptions before delivery."""

    @property
    def vectors(self) -> int:
        """The mask of vectors that this observer wants to decide on."""

    def exception(self, vcpu: "Vcpu", exit: ExceptionExit, /) -> Verdict:
        """Look at an exception and say what is to become of it."""


class Observers:
    """The observers of a VM. One that raises is removed and reported, and the guest's run goes on."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._observers: list[Observer] = []
        self._changed = changed
        self.failures: list[tuple[Observer, Exception]] = []
        """Observers that raised, with what they raised."""
        self.vectors = 0
        """The vectors that somebody decides on."""
        self._asked: dict[int, tuple[Observer, ...]] = {}
        """Who is asked, by vector."""

    def add(self, observer: Observer) -> None:
        """Let an observer see exceptions from the next exit on."""
        self._observers.append(observer)
        self._recalc()

    def remove(self, observer: Observer) -> None:
        """Take an observer away; ValueError if it is not there."""
        self._observers.remove(observer)
        self._recalc()

    def ask(self, vcpu: "Vcpu", exit: ExceptionExit) -> Verdict:
        """Return the first verdict that is not FORWARD."""
        for observer in self._asked.get(exit.event.vector, ()):
            try:
                verdict = observer.exception(vcpu, exit)
            except Exception as error:
                log.exception("the observer %r failed and was removed", observer)
                self.failures.append((observer, error))
                if observer in self._observers:  # it may have removed itself before it failed
                    self.remove(observer)
                continue
            if verdict is not _FORWARD:
                return verdict
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
