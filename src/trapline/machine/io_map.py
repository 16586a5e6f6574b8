"""The I/O permission map of a TSS that begins inside the TSS itself (APM vol. 2, 12.2.4)."""

from trapline.arch.descriptors import IO_MAP_BASE, IO_MAP_TSS, TSS_SIZE, Attribute
from trapline.arch.registers import RFLAGS
from trapline.arch.vmcb import SaveArea

from .linear import read_mapped
from .memory import GuestMemory


def misplaced(port: int, base: int, limit: int) -> str | None:
    """Return a sentence on a port that the map has permitted, if the map cannot be meant; None: it can."""
    if base >= TSS_SIZE:
        return None
    return (
        f"user code used port {port:#x}, by the I/O map of its TSS: the map base is {base:#x}, inside the TSS (limit "
        f"{limit:#x}), so that the TSS's own fields, and what follows, are taken for the map; a base beyond the limit "
        "permits no port"
    )


def misplaced_at_port(save: SaveArea, memory: GuestMemory, port: int) -> str | None:
    """Return the same of a guest that is stopped at an access to a port, which it was permitted."""
    iopl = (save.rflags & RFLAGS.IOPL) >> RFLAGS.IOPL_SHIFT
    task = save.tr
    if save.cpl <= iopl or save.rflags & RFLAGS.VM or task.attributes & Attribute.TYPE not in IO_MAP_TSS:
        return None
    data = read_mapped(save, memory, task.base + IO_MAP_BASE, 2)
    return misplaced(port, int.from_bytes(data, "little"), task.limit) if len(data) == 2 else None
