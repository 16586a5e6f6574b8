"""Known defects: texts of the source, and what is written in their place; a table for each room."""

import re
from typing import Final

from tools.defect import Defect

from . import debugger, explain, guests, hypervisor, qemu, session, symbols, trace, unicorn

_ROOMS: Final = (debugger, explain, guests, hypervisor, qemu, session, symbols, trace, unicorn)


def _order(defect: Defect) -> tuple[int, str]:
    return int(re.sub(r"\D", "", defect.number)), defect.number


DEFECTS: Final = tuple(sorted((defect for room in _ROOMS for defect in room.DEFECTS), key=_order))
