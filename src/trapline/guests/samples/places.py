"""Where everything of a sample guest is: addresses are gva and gpa alike."""

from typing import Final

LOAD: Final = 0x10_0000
"""The multiboot header, and the 32-bit code that is entered, which follows it."""
ENTRY: Final = 0x10_0020
CODE: Final = 0x10_1000
USER: Final = 0x10_4000
"""The program at CPL 3, if there is one."""
VARIABLES: Final = 0x10_5000
TEXT: Final = 0x10_6000
TABLES: Final = 0x10_8000
IDT: Final = 0x10_9000
PML4: Final = 0x10_A000
PDPT: Final = 0x10_B000
DIRECTORY: Final = 0x10_C000
PAGES: Final = 0x10_D000
"""The page table of the first 2 MiB."""
LAZY_DIRECTORY: Final = 0x10_E000
LAZY_PAGES: Final = 0x10_F000
"""The page table of the 2 MiB at LAZY: empty."""
LOAD_END: Final = 0x11_0000

GUARD: Final = 0x11_0000
"""A page that is not mapped, below the stack."""
STACK: Final = 0x11_2000
"""The end of a stack of one page."""
INTERRUPT_STACK: Final = 0x11_5000
"""The end of the stack that IST 1 names."""
USER_STACK: Final = 0x11_7000
END: Final = 0x11_8000
FRAMES: Final = 0x14_0000
"""Page frames to map, up to 2 MiB."""

LAZY: Final = 0x4000_0000
UNMAPPED: Final = 0x8000_0000
NON_CANONICAL: Final = 0x8000_0000_0000

GDTR: Final = TABLES + 0x100
IDTR: Final = TABLES + 0x110
TSS: Final = TABLES + 0x200
NAMES: Final = TABLES + 0x400
"""The mnemonics of the vectors, 16 bytes each."""
NAME_SIZE: Final = 16

COUNT: Final = VARIABLES
"""How many exceptions came since it was cleared."""
SKIP: Final = VARIABLES + 8
"""What the handler adds to RIP: the length of the instruction that faults."""
ZERO: Final = VARIABLES + 16
FREE: Final = VARIABLES + 24
"""The next page frame to map."""
SAVED_RSP: Final = VARIABLES + 32
WORD: Final = VARIABLES + 40

CODE_SELECTOR: Final = 0x08
DATA_SELECTOR: Final = 0x10
USER_DATA_SELECTOR: Final = 0x20 | 3
USER_CODE_SELECTOR: Final = 0x28 | 3
TSS_SELECTOR: Final = 0x30
ABSENT_SELECTOR: Final = 0x40
"""A data segment that is not present."""
SHORT_TSS_SELECTOR: Final = 0x48
"""A TSS too short to be one."""
NO_SELECTOR: Final = 0x1000
"""Beyond the end of the GDT."""
