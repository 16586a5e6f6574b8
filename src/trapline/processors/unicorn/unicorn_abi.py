"""What is relied on of Unicorn's inside, and the refusal of a version whose inside is another."""

import ctypes
import re
import struct
from importlib.metadata import version
from typing import Final

from trapline.arch.layout import offset_of, size_of
from trapline.errors import ProcessorError

from .uc_context import Context

KNOWN_VERSIONS: Final = ("2.1.4",)
"""The versions that were looked at."""

_LOOKED_AT: Final = 0x1000
"""How many bytes of `struct uc_struct` are searched."""


def check_version() -> None:
    """Raise ProcessorError for a version that is not known."""
    if (found := version("unicorn")) not in KNOWN_VERSIONS:
        raise _refusal(f"unicorn {found} may keep its CPU state in another way")


def check_size(size: int) -> None:
    """Raise ProcessorError for a context of another size."""
    if size != size_of(Context):
        raise _refusal(f"this unicorn keeps {size} bytes of CPU state, not {size_of(Context)}")


def stop_between_instructions(handle: ctypes.c_void_p, context_size: int) -> None:
    """Let Unicorn look at a request to stop only where a block of instructions begins.

    It looks after each load and store as well, and goes back to the start of the instruction then: an instruction
    that reads, changes and writes memory happens twice. A flag of its own, meant for another architecture, leaves
    these checks out. It is found by its neighbours: context_content (1), cpu_context_size, four bytes of nothing,
    next_pc, hook_insert, first_tb, the flag, init_done (1).
    """
    assert handle.value is not None
    private = (ctypes.c_uint8 * _LOOKED_AT).from_address(handle.value)
    before = struct.pack("<ii", 1, context_size - offset_of(Context, "gprs"))
    found = list(re.finditer(rb"(?s)" + re.escape(before) + rb".{4}.{8}\x00[\x00\x01](?=\x00\x01)", bytes(private)))
    if len(found) != 1:
        raise _refusal("this unicorn cannot be made to stop between two instructions")
    private[found[0].end()] = 1


def _refusal(why: str) -> ProcessorError:
    return ProcessorError(f"{why}: pip install unicorn=={KNOWN_VERSIONS[-1]}")
