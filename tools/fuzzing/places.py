"""The layout of the arena, the guest's memory that a program can reach."""

from typing import Final

PAGE: Final = 0x1000
SIZE: Final = 0x30000
"""Of the arena, which begins at 0."""
REACHED: Final = 0x120000
"""Beyond what real mode can reach by segments alone."""
BASE: Final = 0x10000
"""Of 16-bit segments."""
RAM: Final = 16 << 20
"""What the guest has; nothing but the arena is mapped where paging is on."""

IDT: Final = 0x10000
GDT: Final = 0x11000
LDT: Final = 0x12000
TSS: Final = 0x13000
HANDLERS: Final = 0x14000
CODE: Final = 0x15000
"""Two pages."""
STACKS: Final = 0x18000
"""A page for each ring, and one for interrupt stacks."""
TOPS: Final = tuple(STACKS + PAGE * (ring + 1) for ring in range(4))
IST: Final = 0x1D000
"""The top of the interrupt stack."""
USER: Final = 0x20000
USER_READ: Final = 0x21000
SUPERVISOR: Final = 0x22000
SUPERVISOR_READ: Final = 0x23000
NO_EXECUTE: Final = 0x24000
ABSENT: Final = 0x25000
RESERVED: Final = 0x26000
"""A page whose entry has a reserved bit, where there are any."""
TABLES: Final = 0x28000
"""Four pages of page tables, the root first."""

CLEAN: Final = 0x2C000
"""What runs before each program: page tables, code, and an image for FXRSTOR."""
CLEAN_CODE: Final = CLEAN + 2 * PAGE
CLEAN_IMAGE: Final = CLEAN_CODE + 0x100

TABLE_LIMIT: Final = 0xFF
ALIAS: Final = 0xFFFF_8000_0000_0000
"""Where the same memory is mapped once more in long mode."""
END_VECTOR: Final = 0x81
"""INT of this vector ends a program, from any ring."""
STUB: Final = 16
"""Bytes of a handler."""
