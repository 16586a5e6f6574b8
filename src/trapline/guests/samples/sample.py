"""What a sample guest is, and how it can end."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from trapline.arch.vectors import Vector


class End(Enum):
    """How a sample guest ends."""

    DONE = "debug exit"
    PANIC = "debug exit 1"
    """In the handler of an exception that it did not expect."""
    SHUTDOWN = "triple fault"


@dataclass(frozen=True, slots=True)
class Sample:
    """A tiny guest. `build` returns its image, a flat multiboot 1 kernel."""

    name: str
    description: str
    vectors: tuple[Vector, ...]
    """What it raises, by vector."""
    end: End
    build: Callable[[], bytes]
    cpus: int = 1
    """How many CPUs it needs."""
