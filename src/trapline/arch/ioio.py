"""EXITINFO1 of an I/O exit (APM 15.10.2); EXITINFO2 is the RIP after the instruction."""

from typing import Final

IN: Final = 1 << 0
"""Clear: OUT."""
STRING: Final = 1 << 2
REPEATED: Final = 1 << 3
BYTE: Final = 1 << 4
WORD: Final = 1 << 5
DWORD: Final = 1 << 6
FORM: Final = IN | STRING | REPEATED | BYTE | WORD | DWORD
"""The bits that tell what kind of access it is."""
PORT_SHIFT: Final = 16
PORT: Final = 0xFFFF << PORT_SHIFT


def port(info: int) -> int:
    """Return the first port of an access."""
    return info >> PORT_SHIFT & 0xFFFF


def size(info: int) -> int:
    """Return how many bytes, and so ports, an access has."""
    return (info & (BYTE | WORD | DWORD)) // BYTE


def covered(info: int) -> int:
    """Return the bits of RAX that an access moves."""
    return (1 << 8 * size(info)) - 1
