"""Page walks in words: which entry of which table forbids an access, and what would allow it."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.arch.paging import ADDRESS, FETCH, NX, PS, RW, US, USER, WRITE, A, D, NotMapped, P, PageFault
from trapline.arch.registers import CR0, CR4

from .attempt import Attempt, Change

_NAMES: Final = {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"}


class Level(NamedTuple):
    """An entry that a walk passes."""

    level: int
    gpa: int
    size: int
    value: int

    @property
    def name(self) -> str:
        """The entry's name, as PTE."""
        return _NAMES[self.level]


def walk(attempt: Attempt, gva: int) -> Iterator[Level]:
    """Yield the entries of a walk, down to the page or to the first entry that is not present."""
    save = attempt.save
    if not save.cr0 & CR0.PG:
        return
    narrow = not attempt.long and not save.cr4 & CR4.PAE
    levels = 2 if narrow else 3 if not attempt.long else 5 if save.cr4 & CR4.LA57 else 4
    table = save.cr3 & (0xFFFF_F000 if narrow else ADDRESS if attempt.long else 0xFFFF_FFE0)
    for level in range(levels, 0, -1):
        if narrow:
            at, size = table + (gva >> (12 if level == 1 else 22) & 0x3FF) * 4, 4
            value = attempt.memory.u32(at)
            address = value & 0xFFFF_F000
        else:
            at, size = table + (gva >> 3 + 9 * level & 0x1FF) * 8, 8
            value = attempt.memory.u64(at)
            address = value & ADDRESS
        yield Level(level, at, size, value)
        pae_root = level == 3 == levels
        large = value & PS and 1 < level <= 3 and not pae_root and (not narrow or save.cr4 & CR4.PSE)
        if not value & P or large:
            return
        table = address


def why(attempt: Attempt, gva: int, access: int) -> str | None:
    """Say why an access is refused, naming the entry; None: it is not."""
    gva &= attempt.space.mask
    try:
        attempt.space.translate(gva, access)
    except NotMapped:
        return "not a canonical address"
    except PageFault as fault:
        levels = list(walk(attempt, gva))
        if "reserved" in fault.reason:
            bits = fault.reason.split()[2]
            return f"mapped with reserved bits: {_NAMES[fault.level]} {fault.entry:#x} has {bits} set"
        if fault.reason == "not present":
            return f"not mapped: {_NAMES[fault.level]} is {fault.entry:#x}"
        names = {US: "U/S=0", RW: "R/W=0"}
        for bit, test in ((RW, "read-only"), (US, "supervisor page")):
            if test in fault.reason:
                name = next(level.name for level in levels if not level.value & bit)
                return f"{'not writable' if bit == RW else 'a supervisor page'}: {name} {names[bit]}"
        if "not to be executed" in fault.reason:
            return f"not executable: {next(level.name for level in levels if level.value & NX)} NX=1"
        return fault.reason
    return None


def mapped(attempt: Attempt, gva: int, access: int, *, empty: bool = True) -> Change | None:
    """Return the change of one entry that allows an access; None: there is none so simple.

    `empty`: an entry of zero may get any page, since nothing is read from it.
    """
    gva &= attempt.space.mask
    try:
        attempt.space.translate(gva, access)
    except NotMapped:
        return None
    except PageFault as fault:
        levels = list(walk(attempt, gva))
        entry = _allowing(attempt, levels, fault, access)
        if entry is None or not (empty or entry[0].value):
            return None
        level, value, text = entry
        return Change(f"{level.name} {value:#x}, {text}", stores=((level.gpa, value.to_bytes(level.size, "little")),))
    return None


def _allowing(attempt: Attempt, levels: list[Level], fault: PageFault, access: int) -> tuple[Level, int, str] | None:
    last = levels[-1]
    if "reserved" in fault.reason:
        entry = next(level for level in levels if level.level == fault.level)
        bits = int(fault.reason.split()[2], 16)
        return entry, entry.value & ~bits, "without its reserved bits"
    if fault.reason == "not present":
        if last.value:
            return last, last.value | P, "present"
        if last.level > 3 or (last.level == 2 and last.size == 4 and not attempt.save.cr4 & CR4.PSE):
            return None  # it takes whole tables
        rights = P | RW | A | D | (US if access & USER else 0)
        return last, rights | (PS if last.level > 1 else 0), "present"
    for name, bit, wanted in (("read-only", RW, RW), ("supervisor page", US, US), ("not to be executed", NX, 0)):
        if name in fault.reason:
            wrong = [level for level in levels if (level.value & bit) != wanted]
            text = {RW: "writable", US: "for users too", NX: "executable"}[bit]
            return (wrong[0], wrong[0].value ^ bit, text) if len(wrong) == 1 else None
    if "a user page" in fault.reason:
        return last, last.value & ~US, "a supervisor page"
    return None


__all__ = ["FETCH", "USER", "WRITE", "Level", "mapped", "walk", "why"]
