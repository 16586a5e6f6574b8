"""Watchpoints: hooks of Unicorn on memory, which the guest cannot see.

Unicorn has no data breakpoints: those of TCG are left out of it. Its hooks on memory go by physical addresses, and so
they follow the guest's page tables. A stop is exact where each instruction can be stopped after, which costs two thirds
of the speed.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Final, NamedTuple

from unicorn import UC_MEM_WRITE

from trapline.arch.address_space import AddressSpace
from trapline.arch.exits import ExitCode
from trapline.arch.paging import PAGE, READ, NotMapped, PageFault
from trapline.arch.registers import CR0, CR4, RFLAGS, Gprs
from trapline.arch.vmcb import Vmcb
from trapline.asm.accesses import Access, accesses_at_rip
from trapline.asm.decoder import Mnemonic, instruction_at_rip, repetition_at_rip
from trapline.errors import UsageError
from trapline.machine.linear import next_rip, read_linear
from trapline.machine.processor import Watchpoint

from .binding import Binding
from .delivery_cache import ReadTracker
from .engine import Engine
from .hooks import Hooks
from .memory import Ram
from .pending import Pending
from .state import State
from .stops import DEBUG_TRAP, INTERCEPTED, Stop

_WIDEST: Final = 8
"""Bytes of the widest access of Unicorn: what is wider is several."""
_NOWHERE: Final = 1 << 60
"""A gpa that no guest can name: a hook there makes translated code call hooks at all."""
_AFTER: Final = (Stop.ASKED, INTERCEPTED + ExitCode.VINTR, DEBUG_TRAP)
"""Events after an instruction, even where RIP is still on it as under REP."""


class _Range(NamedTuple):
    """Physical addresses of one page."""

    first: int
    last: int
    gva: int | None
    """The linear address of `first`; None: an entry of a page table."""


class Watchpoints:
    """Stops the CPU after an instruction that accessed watched bytes."""

    def __init__(
        self,
        vmcb: Vmcb,
        gprs: Gprs,
        binding: Binding,
        hooks: Hooks,
        engine: Engine,
        state: State,
        ram: Ram,
        pending: Pending,
        *,
        traced: bool = False,
    ) -> None:
        """`traced`: instructions are traced anyway."""
        self._save, self._gprs = vmcb.save, gprs
        self._binding, self._hooks, self._engine, self._state = binding, hooks, engine, state
        self._ram, self._pending = ram, pending
        self._traced = traced
        self._watched: tuple[Watchpoint, ...] = ()
        self._ranges: tuple[_Range, ...] = ()
        self._numbers: list[int] = []
        self._hits: set[int] = set()
        """Indices of the watchpoints that the instruction accessed at which `_rip` was."""
        self._rip = 0

    @property
    def active(self) -> bool:
        """Whether there are any."""
        return bool(self._watched)

    def set(self, watched: tuple[Watchpoint, ...]) -> None:
        """Watch these bytes, and no others; raises UsageError for a size that is not positive."""
        for one in watched:
            if one.size <= 0:
                raise UsageError(f"a watchpoint has at least one byte, not {one.size}")
        self._unhook()
        was, self._watched = self.active, watched
        if watched:
            self._hook(())
        if self.active != was:
            if not self._traced:
                self._engine.trace(self.active)
            self._state.watch_cr3(self.active)

    def follow_tables(self) -> None:
        """Hook the memory that the addresses are mapped to now. Before each entry into the guest."""
        self._hits.clear()
        save = self._save
        tracker = ReadTracker(self._ram)
        # Without SMAP the supervisor may read whatever is present.
        space = AddressSpace(tracker, save.cr0, save.cr3, save.cr4 & ~CR4.SMAP, save.efer)
        ranges = []
        for one in self._watched:
            first, end = max(0, one.address - _WIDEST + 1), one.address + one.size
            while first < end:
                last = min(end, (first | PAGE - 1) + 1) - 1
                gva = first & space.mask
                try:
                    gpa = self._state.through_a20(space.translate(gva, READ))
                    ranges.append(_Range(gpa, gpa + last - first, gva))
                except (NotMapped, PageFault):
                    pass
                first = last + 1
        for word in sorted(set(tracker.places)):
            ranges.append(_Range(8 * word - _WIDEST + 1, 8 * word + 7, None))
        if tuple(ranges) != self._ranges:
            self._unhook()
            self._hook(tuple(ranges))

    def take_hit(self, event: int) -> Watchpoint | None:
        """Return the watchpoint that was hit when the CPU stopped with an event, with its state in the VMCB."""
        if not self._hits:
            return None
        hit = self._watched[min(self._hits)]
        self._hits.clear()
        if self._save.rip == self._rip:
            if event not in _AFTER:
                return None  # a fault comes before the end of the instruction, and takes back what it did
            if event != DEBUG_TRAP:
                self._end_repetition()
        return hit

    def _end_repetition(self) -> None:
        """Leave an instruction whose repetitions are over: Unicorn does so only when the next one would begin."""
        length, bits = repetition_at_rip(self._save, self._ram)
        if length and not self._gprs.rcx & (1 << bits) - 1:
            self._save.rip = next_rip(self._save, length)

    def _hook(self, ranges: tuple[_Range, ...]) -> None:
        self._ranges = ranges
        places = [*_merged(ranges), (_NOWHERE, _NOWHERE)]
        self._numbers = [self._binding.hook_accesses(first, last, self._on_access) for first, last in places]

    def _unhook(self) -> None:
        for number in self._numbers:
            self._binding.unhook(number)
        self._numbers.clear()

    def _on_access(self, _: object, kind: int, gpa: int, size: int, __: int, ___: object) -> None:
        if self._hooks.saved:
            return
        self._binding.save()
        self._binding.keep_flags()
        writes, rip = kind == UC_MEM_WRITE, self._binding.context.rip
        for first, last, gva in self._ranges:
            if not first <= gpa <= last:
                continue
            if gva is not None:
                self._note(gva + gpa - first, size, writes)
                self._keep_rip(gva + gpa - first, rip)
            elif writes:
                self._pending.interrupt()

    def _note(self, gva: int, size: int, writes: bool) -> None:
        """Note which watchpoints an access hits."""
        for index, one in enumerate(self._watched):
            if gva < one.address + one.size and one.address < gva + size and (writes or one.reads):
                if index not in self._hits and self._is_alias(one, gva):
                    continue
                self._rip = self._binding.context.rip
                self._hits.add(index)
                self._pending.interrupt()

    def _keep_rip(self, gva: int, rip: int) -> None:
        """Keep the RIP that a RETF of real mode has popped, where the load of its selector calls back.

        Unicorn writes RIP before it pops the selector, and at each callback writes the RIP of the instruction again.
        """
        context = self._binding.context
        protected = context.cr0 & CR0.PE and not context.eflags & RFLAGS.VM
        if protected or context.rip != rip:
            return
        self._state.collect()
        if instruction_at_rip(self._save, self._ram).mnemonic == Mnemonic.RETF:
            offset, selector = accesses_at_rip(self._save, self._gprs, self._ram)
            if gva == selector.gva:
                popped = read_linear(self._save, self._ram, offset.gva, offset.size)
                context.rip = int.from_bytes(popped, "little")
                self._binding.restore()

    def _is_alias(self, watched: Watchpoint, gva: int) -> bool:
        """Return whether the access goes by another linear address, which is mapped to the same memory as `gva`."""
        self._state.collect()
        accesses = accesses_at_rip(self._save, self._gprs, self._ram)
        if any(not one.size or _overlap(watched, one) for one in accesses):
            return False
        return any((gva - one.gva) % PAGE < one.size for one in accesses)


def _merged(ranges: tuple[_Range, ...]) -> Iterator[tuple[int, int]]:
    """Yield first and last address of the union of ranges: Unicorn calls every hook that an access meets."""
    first, last = 0, -1
    for one in sorted(ranges, key=itemgetter(0, 1)):
        if one.first > last + 1:
            if last >= first:
                yield first, last
            first, last = one.first, one.last
        last = max(last, one.last)
    if last >= first:
        yield first, last


def _overlap(watched: Watchpoint, access: Access) -> bool:
    return access.gva < watched.address + watched.size and watched.address < access.gva + access.size
