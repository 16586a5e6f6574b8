"""The records of a run as columns of an array: the layout of `machine.Record`, read and not written again."""

from typing import Final, TypeAlias

import numpy as np

from trapline.arch.layout import leaves
from trapline.machine.record import Record

DTYPE: Final = np.dtype(
    {
        "names": [leaf.path for leaf in leaves(Record()) if not leaf.path.startswith("reserved")],
        "formats": [f"<u{leaf.size}" for leaf in leaves(Record()) if not leaf.path.startswith("reserved")],
        "offsets": [leaf.offset for leaf in leaves(Record()) if not leaf.path.startswith("reserved")],
        "itemsize": len(bytes(Record())),
    }
)
"""One record; a view on the bytes that a processor wrote."""

Records: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.void]]"


def view(data: memoryview | bytes) -> Records:
    """Return whole records as an array over the same memory."""
    return np.frombuffer(data, dtype=DTYPE)
