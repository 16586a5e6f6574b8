"""Names and source lines of addresses: ELF with DWARF, System.map, /proc/kallsyms; where a Linux kernel lies; and
who called whom.

    symbols = load(Path("kernel.elf"))
    symbols.lookup(0xFFFF_FFFF_8010_6010)       # Symbol(name="main", offset=0x10, file="main.c", line=12)

An address that is in no function has no name.
"""

from .backtrace import Frame, backtrace
from .files import Names, Symbol, Symbols, load, parse_option
from .slide import KernelValues, find_slide

__all__ = [
    "Frame",
    "KernelValues",
    "Names",
    "Symbol",
    "Symbols",
    "backtrace",
    "find_slide",
    "load",
    "parse_option",
]
