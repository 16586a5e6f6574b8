"""The libraries of the extra `trace`, which are loaded only where traces are read or written."""

import contextlib
import sys
from collections.abc import Iterator

from trapline.errors import MissingExtra


def need_pyarrow() -> None:
    """Load pyarrow. Raises MissingExtra where it is not installed."""
    try:
        import pyarrow  # noqa: F401, ICN001  # loaded for others
    except ImportError:
        raise MissingExtra("pyarrow", "trace") from None


class _WithoutPandas:
    """A finder of modules that finds no pandas."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("no data frame is wanted", name=name)


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Keep pyarrow from importing pandas, which takes half a second and is for nothing where there are no data frames.

    pyarrow does so with its first array wherever pandas is installed, and again for who wants a data frame later.
    """
    finder = _WithoutPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
