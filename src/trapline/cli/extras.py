"""What to say when a library of an optional extra is not installed."""

from trapline.errors import TraplineError


class MissingExtra(TraplineError):
    """A library of an extra is missing; the message says what to install."""


def missing(error: ModuleNotFoundError, extra: str) -> MissingExtra:
    """Return the error for a library that an extra would have brought."""
    return MissingExtra(f"{error.name} is not installed; pip install 'trapline[{extra}]' brings it")
