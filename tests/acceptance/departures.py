"""Where plain QEMU 7.2 and the processor in this process show a matrix guest different things: each by name.

Two consoles of a guest built with COMPARE are compared in blocks, a test with its lines. In a line that is not the
same, something here must say why. Of the lines' fields, `h` is a hash over all that a handler can look at but the
error code: the frame, every register, the stack pointer, CR2, DR6.
"""

import re
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

LINE = re.compile(
    r"(?P<name>\S+) v=(?P<v>\w\w) e=(?P<e>\S{4}) i=(?P<i>\w{8}) f=(?P<f>\w{8}) c=(?P<c>\w{8}) d=(?P<d>\w{4}) h=\w+"
)
STATUS = 0x8D5


class Block(NamedTuple):
    """A test that is not the same: what stands in front of the first blank of its lines, and both its lines."""

    name: str
    plain: list[str]
    ours: list[str]


class Departure(NamedTuple):
    """A reason for a difference."""

    why: str
    explains: Callable[[Block], bool]


def lines_by(explains: Callable[[re.Match[str], re.Match[str]], bool]) -> Callable[[Block], bool]:
    """Return a check of blocks whose lines differ one by one."""

    def block(found: Block) -> bool:
        if len(found.plain) != len(found.ours):
            return False
        for plain, ours in zip(found.plain, found.ours, strict=True):
            fields = LINE.fullmatch(plain), LINE.fullmatch(ours)
            if plain != ours and not (None not in fields and explains(*fields)):  # type: ignore[arg-type]
                return False
        return True

    return block


def named(pattern: str) -> Callable[[Block], bool]:
    """Return a check of a block by its name alone: nothing in it is compared."""
    return lambda found: re.fullmatch(pattern, found.name) is not None


def same_but(plain: re.Match[str], ours: re.Match[str], *fields: str) -> bool:
    """Say whether lines are the same but for some fields; where all that is hashed is the same, the hash counts too."""
    strip = [re.sub(rf" (?:{'|'.join(fields)})=\S+", "", match[0]) for match in (plain, ours)]
    return strip[0] == strip[1]


def ext(plain: re.Match[str], ours: re.Match[str]) -> bool:
    codes = plain["e"], ours["e"]
    return (
        "----" not in codes
        and plain["v"] != "0e"
        and int(codes[0], 16) == int(codes[1], 16) & ~1
        and same_but(plain, ours, "e")
    )


def idt_code(plain: re.Match[str], ours: re.Match[str]) -> bool:
    codes = plain["e"], ours["e"]
    if "----" in codes or not int(codes[1], 16) & 2:
        return False
    return int(codes[0], 16) == (int(codes[1], 16) >> 3) * 16 + 2 and same_but(plain, ours, "e")


def reserved(plain: re.Match[str], ours: re.Match[str]) -> bool:
    codes = plain["e"], ours["e"]
    return plain["v"] == "0e" and int(codes[0], 16) == int(codes[1], 16) & ~1 and same_but(plain, ours, "e")


def status_flags(plain: re.Match[str], ours: re.Match[str]) -> bool:
    return (
        plain["f"] != ours["f"]
        and int(plain["f"], 16) == int(ours["f"], 16) & ~STATUS
        and same_but(plain, ours, "f", "h")
    )


def behind_sti(found: Block) -> bool:
    """Drop from ours the lines that plain QEMU leaves out, if IF is set in them; what is left may differ by SYSCALL."""
    left, plain = [], list(found.plain)
    for line in found.ours:
        fields = LINE.fullmatch(line)
        if plain and (line == plain[0] or _either(plain[0], fields)):
            left.append(plain.pop(0))
        elif fields is None or not int(fields["f"], 16) & 0x200:
            return False
    return not plain and len(left) < len(found.ours)


def _either(plain: str, ours: re.Match[str] | None) -> bool:
    match = LINE.fullmatch(plain)
    return match is not None and ours is not None and status_flags(match, ours)


OF_QEMU = {
    "EXT": Departure("error codes have EXT clear: seg_helper.c, do_interrupt_protected, do_interrupt64", lines_by(ext)),
    "IDT code": Departure("vector * 16 + 2 in long mode: seg_helper.c, do_interrupt64", lines_by(idt_code)),
    "reserved bit": Departure(
        "a page fault for a reserved bit has P clear: excp_helper.c, mmu_translate, do_fault_rsvd",
        lambda found: re.match("pf-rsvd|nxe-off", found.name) is not None and lines_by(reserved)(found),
    ),
    "handler address": Departure(
        "a handler that is not canonical is entered, and faults there: seg_helper.c, do_interrupt64",
        named(r".*/ripnc"),
    ),
    "handler limit": Departure(
        "a handler behind its segment is entered: seg_helper.c, do_interrupt_protected", named(r".*/small")
    ),
    "stack address": Departure(
        "a push that is not canonical raises #GP: excp_helper.c, get_physical_address", named(r".*\.0/stacknc")
    ),
    "IST": Departure(
        "an IST stack alone makes SS null: seg_helper.c, do_interrupt64, new_stack",
        lambda found: (
            re.match("nmi", found.name) is not None and lines_by(lambda plain, ours: same_but(plain, ours, "h"))(found)
        ),
    ),
    "SYSCALL": Departure(
        "SYSCALL clears the status flags: seg_helper.c, helper_syscall, cpu_load_eflags", lines_by(status_flags)
    ),
    "STI": Departure("no trap behind STI: translate.c, gen_eob_inhibit_irq (and clears them at SYSCALL)", behind_sti),
    "CR0": Departure("the upper half of CR0 is ignored: misc_helper.c, helper_write_crN", named(r"cr0-high\.0/ok")),
    "EFER": Departure(
        "reserved bits of EFER are ignored: misc_helper.c, helper_wrmsr", named(r"efer-(flip/\d\d|high|svme)")
    ),
}

OF_UNICORN = {
    "watchpoint": Departure(
        "exec.c: cpu_watchpoint_insert and cpu_check_watchpoint are empty", named(r"hw-(write|read|push|movs)\..*")
    ),
    "RF": Departure(
        "RF ends with a block of instructions, not with the instruction: translate.c, gen_eob",
        named(r"(hw-resume|rf-nop-ud)\..*"),
    ),
}


def blocks(console: bytes) -> list[tuple[str, list[str]]]:
    """Return the tests of a console with their lines, in order; what stands before the first is left out."""
    lines = console.decode("latin1").replace("\r", "").split("\n")
    told = [line for line in lines if " h=" in line]
    return [(name, list(group)) for name, group in groupby(told, lambda line: line.split(" ")[0])]


def differences(plain: bytes, ours: bytes) -> list[Block]:
    """Return the tests that are not the same."""
    pairs = zip(blocks(plain), blocks(ours), strict=True)
    found = []
    for (name, first), (other, second) in pairs:
        assert name == other, "the tests are others"
        if first != second:
            found.append(Block(name, first, second))
    return found


def explain(found: Block) -> str | None:
    """Return the name of what explains a difference."""
    for name, departure in {**OF_QEMU, **OF_UNICORN}.items():
        if departure.explains(found):
            return name
    return None
