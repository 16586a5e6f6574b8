"""The low 16, 32 and 64 bits as masks."""

from typing import Final

M16: Final = 0xFFFF
M32: Final = 0xFFFF_FFFF
M64: Final = 0xFFFF_FFFF_FFFF_FFFF
