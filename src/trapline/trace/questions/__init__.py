"""Questions to the records of traces: pure functions from a `reading.Reading` to values.

To import it raises MissingExtra where pyarrow is not installed.
"""

from trapline.errors import MissingExtra

try:
    import pyarrow  # noqa: F401, ICN001  # the modules of this package need it
except ImportError:
    raise MissingExtra("pyarrow", "trace") from None
