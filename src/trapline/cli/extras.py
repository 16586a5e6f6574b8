"""What to say when a library of an optional extra is not installed."""

from importlib.util import find_spec

from trapline.errors import TraplineError


class MissingExtra(TraplineError):
    """A library of an extra is missing; the message says what to install."""


def require(extra: str, *libraries: str) -> None:
    """Raise MissingExtra unless the libraries of an extra are there. Loads none of them."""
    for library in libraries:
        if find_spec(library) is None:
            raise MissingExtra(f"{library} is not installed; pip install 'trapline[{extra}]' brings it")
