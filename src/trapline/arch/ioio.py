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

COVERED: Final = {BYTE: 0xFF, WORD: 0xFFFF, DWORD: 0xFFFF_FFFF}
"""The bits of RAX that an access of each size moves."""
