"""Firmware configuration DMA: QEMU itself reads and writes memory for the guest (QEMU docs/specs/fw_cfg).

    +0  control, then what became of it    FWCfgDmaAccess: big-endian, anywhere in memory
    +4  length
    +8  address of the data

The guest writes the descriptor's address to two ports, high half first; the low half starts. QEMU gets a copy that the
guest cannot change any more, in the shared memory, and only after a check that it does not reach that memory.

Of what is after the end of an item a READ has as many zeros as the guest asks for. That can take QEMU minutes, in which
it does nothing else; so it is given a long one in parts.
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import Final

from trapline.arch.layout import size_of
from trapline.errors import FaultError
from trapline.machine.memory import GuestMemory

from . import layout
from .dma_descriptor import DmaDescriptor
from .guard import Access, Rule, Steps
from .layout import DMA_AT, SharedMemory

HIGH: Final = 0x514
LOW: Final = 0x518
_HALF: Final = 4
ERROR: Final = 1 << 0
READ: Final = 1 << 1
SELECT: Final = 1 << 3
WRITE: Final = 1 << 4
"""Bits of control. With neither READ nor WRITE there is no transfer."""
_DESCRIPTOR: Final = struct.Struct(">IIQ")
SIZE: Final = size_of(DmaDescriptor)
_ADDRESSES: Final = 1 << 64
PART: Final = 4 << 20
"""Bytes that QEMU transfers at a time."""


class FwCfgDma:
    """The rules of the two ports. What the guest wrote first is in the mailbox; a reset keeps it (fw_cfg.c)."""

    def __init__(self, shared: SharedMemory, memory: GuestMemory) -> None:
        self._shared = shared
        self._mailbox = shared.mailbox
        self._memory = memory

    @property
    def rules(self) -> dict[int, Rule]:
        """The rule of each port, for the accesses that begin there."""
        return {HIGH: self._keep, LOW: self._start}

    def _keep(self, access: Access) -> Steps:
        if access.value is None or access.size != _HALF:
            return (yield access)
        self._mailbox.dma_high = access.value
        return 0

    def _start(self, access: Access) -> Steps:
        if access.value is None or access.size != _HALF:
            return (yield access)
        descriptor = _swapped(self._mailbox.dma_high) << 32 | _swapped(access.value)
        self._mailbox.dma_high = 0
        try:
            found = self._memory.read(descriptor, SIZE)
        except FaultError:
            self._answer(descriptor, ERROR.to_bytes(4, "big"))
            return 0
        at = self._shared.at + DMA_AT
        memory, place = self._shared.memory, self._shared.base + at
        result = 0
        for part in parts(kept_out(found, self._shared.base, self._shared.nothing, self._shared.size)):
            memory[at : at + SIZE] = part
            yield Access(HIGH, _HALF, _swapped(place >> 32))
            yield Access(LOW, _HALF, _swapped(place & 0xFFFF_FFFF))
            result |= int.from_bytes(memory[at : at + 4], "big")
        self._answer(descriptor, result.to_bytes(4, "big"))
        return 0

    def _answer(self, descriptor: int, control: bytes) -> None:
        with contextlib.suppress(FaultError):
            self._memory.write(descriptor, control)


def kept_out(descriptor: bytes, base: int, nothing: int, size: int = layout.SIZE) -> bytes:
    """Return the descriptor; one that reaches the shared memory leads to `nothing`, where no memory is.

    The shared memory has `size` bytes at `base`.
    """
    control, length, address = _DESCRIPTOR.unpack(descriptor)
    end = address + length
    overlaps = (address < base + size and base < end) or base < end - _ADDRESSES  # it wraps
    if overlaps and control & (READ | WRITE):
        return _DESCRIPTOR.pack(control, length, nothing)
    return descriptor


def parts(descriptor: bytes) -> Iterator[bytes]:
    """Yield the descriptors that do the same, each of `PART` bytes at most if it is a READ; the first selects the item.

    After an error too the others follow, as QEMU goes on to the end of what it writes at once.
    """
    control, length, address = _DESCRIPTOR.unpack(descriptor)
    part = min(length, PART) if control & READ else length
    yield _DESCRIPTOR.pack(control, part, address)
    for done in range(part, length, PART):
        rest = min(length - done, PART)
        yield _DESCRIPTOR.pack(control & 0xFFFF & ~SELECT, rest, (address + done) % _ADDRESSES)


def _swapped(half: int) -> int:
    return int.from_bytes(half.to_bytes(4, "little"), "big")
