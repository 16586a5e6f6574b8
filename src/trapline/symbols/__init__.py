"""Symbols and source lines of addresses, from ELF with DWARF, System.map and /proc/kallsyms; the slide of a Linux
kernel; backtraces.

    symbols = load(Path("kernel.elf"))
    symbols.lookup(0xFFFF_FFFF_8010_6010)       # Symbol(name="main", offset=0x10, file="main.c", line=12)

An address that is not in a function has no symbol.
"""

from .backtrace import Frame, backtrace
from .call_frames import unwind
from .files import Names, Symbols, load, parse_option
from .slide import KernelValues, find_slide
from .symbol import Symbol, place_in

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
    "place_in",
    "unwind",
]
