"""What to say when a library of an optional extra is not installed."""

from importlib.util import find_spec

from trapline.errors import TraplineError


class MissingExtra(TraplineError):
    """A library of an extra is missing; the message says what to install."""


def require(extra: str, *libraries: str) -> None:
    """Raise MissingExtra unless the libraries of an extra are there. Loads none of them."""
    for library in libraries:
        if not _found(library):
            raise MissingExtra(f"{library} is not installed; pip install 'trapline[{extra}]' brings it")


def _found(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # the package that it is a part of
        return False
