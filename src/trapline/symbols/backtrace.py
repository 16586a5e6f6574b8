"""Backtraces by frame pointers: a guess, since a function need not keep them."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

Reader: TypeAlias = Callable[[int, int], bytes]
"""`read(gva, size)`: up to `size` bytes at a linear address, fewer where the next page is not mapped."""

_DEEPEST: Final = 32
_FARTHEST: Final = 1 << 20
"""Bytes from one frame to the next: no frame is larger."""


class Frame(NamedTuple):
    """A caller."""

    address: int
    """The return address."""
    pointer: int
    """The frame pointer of its callee, where its own frame pointer and the return address are stored."""


def backtrace(
    read: Reader, frame_pointer: int, stack_pointer: int, bits: int, is_code: Callable[[int], bool] = bool
) -> list[Frame]:
    """Follow frame pointers from RBP outwards, as long as they ascend and lead to code.

    `bits` is the size of code: 16, 32 or 64. `is_code` returns whether an address can be a return address.
    """
    size = bits // 8
    frames: list[Frame] = []
    pointer, below = frame_pointer, stack_pointer
    while len(frames) < _DEEPEST and below <= pointer < below + _FARTHEST and pointer % size == 0:
        stored = read(pointer, 2 * size)
        if len(stored) < 2 * size:
            break
        following, address = (int.from_bytes(stored[at : at + size], "little") for at in (0, size))
        if not is_code(address):
            break
        frames.append(Frame(address, pointer))
        pointer, below = following, pointer + 2 * size
    return frames


def stack_values(read: Reader, stack_pointer: int, bits: int, count: int = 16) -> list[int]:
    """Return up to `count` values at the stack pointer, each of `bits` bits: fewer where the stack is not mapped."""
    size = bits // 8
    stored = read(stack_pointer, size * count)
    return [int.from_bytes(stored[at : at + size], "little") for at in range(0, len(stored) - size + 1, size)]
