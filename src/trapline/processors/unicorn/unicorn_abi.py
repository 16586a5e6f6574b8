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
"""The versions whose source was read."""

_SEARCHED: Final = 0x1000
"""How many bytes of `struct uc_struct` are searched."""


def check_version() -> None:
    """Raise ProcessorError for a version that is not known."""
    if (found := version("unicorn")) not in KNOWN_VERSIONS:
        raise _refusal(f"unicorn {found} may keep its CPU state in another way")


def check_size(size: int) -> None:
    """Raise ProcessorError for a context of another size."""
    if size != size_of(Context):
        raise _refusal(f"this unicorn keeps {size} bytes of CPU state, not {size_of(Context)}")


def find_no_exit_request(handle: ctypes.c_void_p, context_size: int) -> ctypes.c_uint8:
    """Return the flag that makes Unicorn serve a request to stop only where a block of instructions begins.

    Else it does so after each load and store as well, and goes back to the start of the instruction: one that reads,
    changes and writes memory happens twice. The flag, meant for another architecture, counts when code is translated.
    It is found by its neighbours: context_content (1), cpu_context_size, four bytes of padding, next_pc, hook_insert,
    first_tb, the flag, init_done (1).
    """
    before = struct.pack("<ii", 1, context_size - offset_of(Context, "gprs"))
    pattern = rb"(?s)" + re.escape(before) + rb".{4}.{8}\x00[\x00\x01](?=\x00\x01)"
    found = list(re.finditer(pattern, _private(handle)))
    if len(found) != 1:
        raise _refusal("this unicorn cannot be made to stop between two instructions")
    return ctypes.c_uint8.from_address(_address(handle) + found[0].end())


def find_emu_count(handle: ctypes.c_void_p, count: int) -> ctypes.c_size_t:
    """Return the limit of instructions of `uc_emu_start`, given the `count` that it was called with last."""
    found = list(re.finditer(re.escape(struct.pack("<Q", count)), _private(handle)))
    if len(found) != 1:
        raise _refusal("this unicorn cannot be made to stop after each instruction")
    return ctypes.c_size_t.from_address(_address(handle) + found[0].start())


def find_emu_counter(limit: ctypes.c_size_t) -> ctypes.c_uint64:
    """Return how many instructions `uc_emu_start` has executed, given their limit: its neighbour, emu_counter."""
    return ctypes.c_uint64.from_address(ctypes.addressof(limit) - ctypes.sizeof(ctypes.c_uint64))


def _address(handle: ctypes.c_void_p) -> int:
    assert handle.value is not None
    return handle.value


def _private(handle: ctypes.c_void_p) -> bytes:
    return ctypes.string_at(_address(handle), _SEARCHED)


def _refusal(why: str) -> ProcessorError:
    return ProcessorError(f"{why}: pip install unicorn=={KNOWN_VERSIONS[-1]}")
