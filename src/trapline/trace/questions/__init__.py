"""Questions to the records of traces: pure functions from a `reading.Reading` to values.

To import it raises MissingExtra where pyarrow is not installed.
"""

from trapline.trace.libraries import need_pyarrow

need_pyarrow()
