"""The operating mode of a CPU and its kind of paging (APM vol. 2, 1.3, 5.1)."""

from .descriptors import Attribute
from .registers import CR0, CR4, EFER, RFLAGS
from .vmcb import SaveArea


def mode(save: SaveArea) -> str:
    """Return the operating mode, and the size of its code where a mode has two: as "protected mode, 32-bit code"."""
    if not save.cr0 & CR0.PE:
        return "real mode"
    if save.rflags & RFLAGS.VM:
        return "virtual-8086 mode"
    if save.efer & EFER.LMA and save.cs.attributes & Attribute.L:
        return "64-bit mode"
    name = "compatibility mode" if save.efer & EFER.LMA else "protected mode"
    return f"{name}, {32 if save.cs.attributes & Attribute.DB else 16}-bit code"


def paging(save: SaveArea) -> str:
    """Return the kind of paging: as "no paging" or "4-level paging"."""
    if not save.cr0 & CR0.PG:
        return "no paging"
    if save.efer & EFER.LMA:
        return "5-level paging" if save.cr4 & CR4.LA57 else "4-level paging"
    return "PAE paging" if save.cr4 & CR4.PAE else "32-bit paging"
