"""The ports of isa-debug-exit, which every machine has: in the command line, where the user may have put others."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from trapline.devices.power import DEBUG_EXIT

DEVICE: Final = "isa-debug-exit"
DEFAULT: Final = ("-device", f"{DEVICE},iobase={DEBUG_EXIT:#x},iosize=4")
"""Where guests expect it; QEMU's own default is another place."""
_IOBASE, _IOSIZE = 0x501, 2
"""What QEMU takes where the option does not say (hw/misc/debugexit.c)."""


def exit_ports(command: Sequence[str]) -> list[range]:
    """Return the ports of each isa-debug-exit on a command line; an empty range where they cannot be read."""
    devices = [
        value for option, value in itertools.pairwise(command) if option in ("-device", "--device") and DEVICE in value
    ]
    return [_ports(_properties(value)) for value in devices]


def _properties(value: str) -> dict[str, Any]:
    if not value.startswith("{"):
        return dict(part.partition("=")[::2] for part in value.split(","))
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _ports(properties: dict[str, Any]) -> range:
    try:
        base, size = (
            int(str(properties.get(name, default)), 0) for name, default in (("iobase", _IOBASE), ("iosize", _IOSIZE))
        )
    except ValueError:
        return range(0)
    if base < 0 or size < 0:  # QEMU refuses it
        return range(0)
    return range(base, min(base + size, 0x1_0000))
