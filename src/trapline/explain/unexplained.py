"""Errors of trapline's own in explanations: each costs that explanation alone, and is told."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from trapline.errors import TraplineError

log = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")
_PACKAGE: Final = Path(__file__).parents[1]


class Unexplained:
    """Keeps a sentence on each error."""

    def __init__(self) -> None:
        self.told: dict[str, None] = {}
        """The sentences, in their order."""

    def guard(self, explain: Callable[[], T], otherwise: U) -> T | U:
        """Return what a function returns, or `otherwise` where it raises an error that is not meant for users."""
        return self.attempt(explain, lambda _: otherwise)

    def attempt(self, explain: Callable[[], T], failed: Callable[[str], U]) -> T | U:
        """Return what a function returns, or what `failed` makes of the sentence on such an error."""
        try:
            return explain()
        except (TraplineError, MemoryError):
            raise
        except Exception as error:  # told
            log.info("an explanation failed", exc_info=True)
            text = sentence(error)
            self.told[text] = None
            return failed(text)


def sentence(error: Exception) -> str:
    """Say that an error of trapline's own kept something from being explained, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(last.filename)
    place = path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path.name
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"This could not be explained: an error in trapline: {what} ({place}, line {last.lineno})."
