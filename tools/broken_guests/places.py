"""Where everything of a broken guest is, as gpas: below 1 MiB, so that real mode reaches it with segments at LOAD."""

from typing import Final

LOAD: Final = 0x2_0000
"""The multiboot header and the 32-bit code that is entered."""
CODE: Final = LOAD + 0x1000
HANDLERS: Final = LOAD + 0x2000
USER: Final = LOAD + 0x4000
DATA: Final = LOAD + 0x5000
"""The ticks of the timer, and a page to read and write."""
GDT: Final = LOAD + 0x6000
TSS: Final = GDT + 0x200
GDTR: Final = GDT + 0x400
IDTR: Final = GDT + 0x410
EARLY_GDTR: Final = GDT + 0x420
"""For 32-bit code, which cannot load the upper half of an address."""
IDT: Final = LOAD + 0x7000
STACK: Final = LOAD + 0xA000
"""The end of a stack of one page, below which is a page that is not mapped."""
GUARD: Final = STACK - 0x2000
FAULT_STACK: Final = LOAD + 0xB000
"""The end of the stack of #DF in long mode, IST 1."""
USER_STACK: Final = LOAD + 0xC000
ZEROS: Final = LOAD + 0xC000
TARGET: Final = LOAD + 0xD000
"""The page that the window leads to: RET."""
ROOT: Final = LOAD + 0x1_0000
TABLES: Final = LOAD + 0x1_1000
"""Page tables: those of the kernel, then those of the window."""
END: Final = LOAD + 0x1_8000

NULL, CODE_0, DATA_0, CODE_3, DATA_3, TASK, ABSENT, CODE_ONLY, SYSTEM, REAL_CODE, REAL_DATA = (
    0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x38, 0x40, 0x48, 0x50, 0x58,
)  # fmt: skip
"""Selectors; the TSS has two entries."""
GDT_LIMIT: Final = 0x5F
