"""A cache of deliveries: those into the same handler, through the same tables, to the same page of stack are replayed.

The model of delivery reads some dozen quadwords of guest memory and takes five times as long as the CPU to stop and
resume. Its result is kept with the quadwords that it read. As long as they are the same, and the state that it depends
on, only the frame differs.
"""

from collections.abc import Callable
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple

from trapline.arch.bits import M64
from trapline.arch.delivery import Delivered, apply
from trapline.arch.events import ERROR_CODE_VALID
from trapline.arch.layout import offset_of
from trapline.arch.paging import PAGE, PAGE_OFFSET, PAGE_SHIFT
from trapline.arch.registers import EFER, RFLAGS
from trapline.arch.vmcb import Vmcb

from .memory import Ram

_EFER, _RFLAGS, _RIP, _RSP = (offset_of(Vmcb, f"save.{name}") // 8 for name in ("efer", "rflags", "rip", "rsp"))
_CPL, _CPL_SHIFT = divmod(offset_of(Vmcb, "save.cpl"), 8)
_CPL_MASK: Final = 3 << 8 * _CPL_SHIFT
_WITHOUT_CODE: Final = 0xFFFF_FFFF
_MOST: Final = 512
_FRAMES: Final = {5: Struct("<5Q"), 6: Struct("<6Q")}
"""In long mode: RIP, CS, RFLAGS, RSP and SS from the lowest address up, with an error code below them."""

Key = tuple[int, int, int, int]


class Known(NamedTuple):
    """A delivery of the past."""

    read: Callable[[memoryview], object]
    """Takes from RAM the quadwords that the model read."""
    words: object
    """Their values."""
    delivered: Delivered
    gpa: int
    """Of the frame, or of the page that it is in, where RSP says at which offset."""
    frame: Struct
    cs: int
    ss: int
    """The selectors that are pushed."""
    cleared: int
    """Bits of RFLAGS that the handler finds clear."""
    pushed: int
    """Bits of RFLAGS that the frame has set."""
    switches: bool
    """CS, SS or CPL change."""


class ReadTracker:
    """Guest memory that notes which quadwords are read."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self.places: list[int] = []
        """Their numbers, with repetitions."""

    def u32(self, gpa: int) -> int:
        """See `Ram.u32`."""
        self.places += (gpa >> 3, gpa + 3 >> 3)
        return self._ram.u32(gpa)

    def u64(self, gpa: int) -> int:
        """See `Ram.u64`."""
        self.places += (gpa >> 3, gpa + 7 >> 3) if gpa & 7 else (gpa >> 3,)
        return self._ram.u64(gpa)


class DeliveryCache:
    """Deliveries in long mode, by the state that they depend on."""

    def __init__(self, ram: Ram, vmcb: Vmcb) -> None:
        self._ram = ram
        self._save = vmcb.save
        self._words = memoryview(vmcb).cast("B").cast("Q")
        self._known: dict[Key, Known] = {}

    def replay(self, generation: int, word: int) -> Known | None:
        """Deliver an event, given as the EVENTINJ word, as before; None: it never was, or memory has changed since."""
        known = self._known.get(self._key(generation, word))
        if known is None:
            return None
        read, before, delivered, gpa, frame, cs, ss, cleared, pushed, switches = known
        words, ram = self._words, self._ram
        if read(ram.words) != before:
            return None
        rsp = delivered.rsp
        if not delivered.own_stack:
            rsp = (words[_RSP] & ~0xF) - frame.size & M64
            if rsp & PAGE_OFFSET > PAGE - frame.size:
                return None
            gpa += rsp & PAGE_OFFSET
        flags = words[_RFLAGS]
        if word & ERROR_CODE_VALID:
            ram.write(gpa, frame.pack(word >> 32, words[_RIP], cs, flags | pushed, words[_RSP], ss))
        else:
            ram.write(gpa, frame.pack(words[_RIP], cs, flags | pushed, words[_RSP], ss))
        words[_RFLAGS], words[_RIP], words[_RSP] = flags & ~cleared, delivered.rip, rsp
        if switches:
            apply(self._save, delivered._replace(rflags=flags & ~cleared, rsp=rsp))
        return known

    def _key(self, generation: int, word: int) -> Key:
        """Return what a delivery depends on beside memory.

        At CPL 0 the frame is as a rule where RSP is: it depends on the page that is written first. To other privilege
        levels no delivery is kept but those that switch the stack.
        """
        words = self._words
        page = -1 if words[_CPL] & _CPL_MASK else (words[_RSP] & ~0xF) - 8 >> PAGE_SHIFT
        return generation, word & _WITHOUT_CODE, words[_RFLAGS] & ~RFLAGS.STATUS, page

    def remember(self, generation: int, word: int, delivered: Delivered, tracker: ReadTracker) -> None:
        """Keep a delivery in long mode that is about to be applied, if it stored nothing but its frame."""
        if not self._words[_EFER] & EFER.LMA:
            return
        frame = _FRAMES.get(len(delivered.frame.values))
        if frame is None or len(delivered.writes) != 1 or len(delivered.writes[0][1]) != frame.size:
            return
        if self._words[_CPL] & _CPL_MASK and not delivered.own_stack:
            return
        words, places = self._ram.words, sorted(set(tracker.places))
        if places[-1] >= len(words):
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        read = itemgetter(*places)
        flags, (gpa, _) = self._save.rflags, delivered.writes[0]
        gpa -= 0 if delivered.own_stack else gpa & PAGE_OFFSET
        pushed = delivered.frame.values[2] & ~flags
        switches = delivered.ss is not None or delivered.cpl != self._save.cpl or not self._same_code(delivered)
        selectors = self._save.cs.selector, self._save.ss.selector
        cleared = flags & ~delivered.rflags
        known = Known(read, read(words), delivered, gpa, frame, *selectors, cleared, pushed, switches)
        self._known[self._key(generation, word)] = known

    def _same_code(self, delivered: Delivered) -> bool:
        cs = self._save.cs
        return (cs.selector, cs.attributes, cs.limit, cs.base) == tuple(delivered.cs)
