"""Stored records as a structured numpy array with the layout of `machine.Record`.

numpy is loaded when an array is first asked for: it takes as long to load as QEMU to start.
"""

from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from trapline.arch.layout import leaves
from trapline.machine.record import RECORD_SIZE, Record

if TYPE_CHECKING:
    import numpy as np

    Records: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.void]]"


@cache
def dtype() -> "np.dtype[np.void]":
    """Return the type of one record."""
    import numpy as np

    fields = [leaf for leaf in leaves(Record()) if not leaf.path.startswith("reserved")]
    return np.dtype(
        {
            "names": [leaf.path for leaf in fields],
            "formats": [f"<u{leaf.size}" for leaf in fields],
            "offsets": [leaf.offset for leaf in fields],
            "itemsize": RECORD_SIZE,
        }
    )


def view(data: memoryview | bytes) -> "Records":
    """Return whole records as an array over the same memory."""
    import numpy as np

    return np.frombuffer(data, dtype=dtype())
