"""The libraries of the extra `trace`, which are loaded only where traces are read or written."""

from trapline.errors import MissingExtra


def need_pyarrow() -> None:
    """Load pyarrow. Raises MissingExtra where it is not installed."""
    try:
        import pyarrow  # noqa: F401, ICN001  # loaded for others
    except ImportError:
        raise MissingExtra("pyarrow", "trace") from None
