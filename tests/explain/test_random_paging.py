"""Page tables with one mistake at random: what is named is that mistake, and its repair lets the code be fetched."""

import random
import re

import pytest

from tests.explain.machines import RAM, Machine, page_fault
from trapline.arch.paging import FETCH, NX, PS, RW, A, D, P, table_index
from trapline.arch.registers import CR0, CR4, EFER
from trapline.explain.paging import cause_of_fetch, unmapped_code

FULL = P | RW | A | D
LONG, PAE, NARROW = "long", "pae", "narrow"
BASES = {LONG: (0, 0xFFFF_FFFF_8000_0000, 0xFFFF_8000_0000_0000), PAE: (0, 0xC000_0000), NARROW: (0, 0xC000_0000)}
STATES = {
    LONG: {"cr4": CR4.PAE, "efer": EFER.LME | EFER.LMA},
    PAE: {"cr4": CR4.PAE, "efer": 0, "cs.attributes": 0xC9B},
    NARROW: {"cr4": CR4.PSE, "efer": 0, "cs.attributes": 0xC9B},
}
MISTAKES = {
    "not aligned": "is not aligned to (4096|32) bytes",
    "absent": r"CR[03] was just loaded|paging was just turned on",
    "NX without NXE": "has 0x8000000000000000 set, NX, while EFER.NXE is clear",
    "no PSE": "has PS set, .* but CR4.PSE is clear",
    "no PAE": "CR4.PAE is clear, so that",
    "no LME": "long mode was not enabled before paging",
    "linear CR3": "where there is no memory: it takes the physical address",
}
POSSIBLE = {
    LONG: ("not aligned", "absent", "NX without NXE", "no LME", None),
    PAE: ("not aligned", "absent", "no PAE", "linear CR3", None),
    NARROW: ("not aligned", "absent", "no PSE", "linear CR3", None),
}


def made(kind, mistake, rng):
    """Return a machine whose code follows a MOV to CR0 or CR3, and whose tables map it but for a mistake."""
    base, rip = rng.choice(BASES[kind]), rng.randrange(0x800, 0x1000)
    mov = rng.choice((b"\x0f\x22\xc0", b"\x0f\x22\xd8"))
    machine = Machine(cr0=CR0.PE | CR0.PG | CR0.WP, rip=base + rip, **STATES[kind])
    machine.memory[:] = bytes(RAM)
    machine.memory[rip - 3 : rip + 1] = mov + b"\x90"
    pages = list(range(2, RAM >> 12, 2))  # a table that is not aligned reaches into the next one
    rng.shuffle(pages)
    tables = [page << 12 for page in pages[:4]]
    root, off = tables[0], 0
    if mistake == "not aligned":
        off = rng.choice((0x400, 0x800)) if kind != PAE else 0x10
    gva = base + rip
    if kind == LONG:
        for level, table, below in zip((4, 3, 2, 1), tables, [*tables[1:], 0], strict=True):
            machine.put(table + (off if level == 4 else 0) + 8 * table_index(gva, level), below | FULL)
        last, index = tables[3], table_index(gva, 1)
    elif kind == PAE:
        machine.put(root + off + 8 * (gva >> 30), tables[1] | P)
        machine.put(tables[1] + 8 * table_index(gva, 2), tables[2] | FULL)
        machine.put(tables[2] + 8 * table_index(gva, 1), FULL)
        last, index = tables[2], table_index(gva, 1)
    else:
        at = root + off + 4 * (gva >> 22)
        machine.memory[at : at + 4] = (FULL | PS).to_bytes(4, "little")
        last, index = root, 0
    machine.save.cr3 = root + off
    if mistake == "absent":
        machine.memory[tables[0] : tables[0] + 0x1000] = bytes(0x1000)
    elif mistake == "NX without NXE":
        machine.put(last + 8 * index, FULL | NX)
    elif mistake == "no PSE" or mistake == "no PAE":
        machine.save.cr4 = 0
    elif mistake == "no LME":
        machine.save.efer, machine.save.cs.attributes = 0, 0xC9B
    elif mistake == "linear CR3":
        machine.save.cr3 = 0xC000_0000 + root
    return machine


@pytest.mark.parametrize("kind", BASES)
def test_the_mistake_is_named(kind):
    named = 0
    for number in range(400):
        seed = f"paging {kind} {number}"
        rng = random.Random(seed)
        mistake = rng.choice(POSSIBLE[kind])
        machine = made(kind, mistake, rng)
        if mistake == "no LME" and machine.save.rip >> 32:
            continue  # 32-bit code is not there
        attempt = machine.attempt(page_fault(0))
        found = cause_of_fetch(attempt)
        if mistake is None:
            assert found is None, seed
            assert unmapped_code(attempt) is None, seed
            continue
        if attempt.translate(attempt.rip, FETCH) is not None and attempt.unbacked(attempt.rip) is None:
            continue  # other memory is mapped there by chance
        assert found is not None, f"{seed}: {mistake}"
        finding, change = found
        assert re.search(MISTAKES[mistake], finding.cause), f"{seed}: {mistake}: {finding.cause}"
        after = attempt.changed(change)
        gpa = after.translate(after.rip, FETCH)
        assert gpa is not None, seed
        assert after.memory.read(gpa, 1) == 0x90, seed
        named += 1
    assert named > 200
