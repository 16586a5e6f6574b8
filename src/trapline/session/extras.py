"""What to say when a library of an optional extra is not installed."""

from importlib.util import find_spec

from trapline.errors import MissingExtra


def require(extra: str, *libraries: str) -> None:
    """Raise MissingExtra unless the libraries of an extra are there. Loads none of them."""
    for library in libraries:
        if not _found(library):
            raise MissingExtra(library, extra)


def _found(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # the package that it is a part of
        return False
