import struct

import pytest

from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR4, DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.machine.processor import Outcome, Watchpoint
from trapline.testing.conformance.modes import (
    CODE,
    CODE_32,
    COMPATIBILITY,
    DATA,
    LONG,
    PAGED_32,
    PROTECTED_32,
    READ_ONLY,
    REAL,
    UNMAPPED,
    VIRTUAL,
    handler,
    page_table_entry,
)

DB_EXIT, PF_EXIT = 0x40 + Vector.DB, 0x40 + Vector.PF
WRITES = Watchpoint(DATA, 4, reads=False)
READS = Watchpoint(DATA, 4, reads=True)


@pytest.fixture
def execute(start):
    """Return a function that starts a guest before machine code."""

    def execute(code, *watched, mode=PROTECTED_32, cpl=0, exceptions=0):
        guest = start(*["nop"] * 40, "cpuid", mode=mode, cpl=cpl, exceptions=exceptions)
        guest.memory.write(CODE, bytes.fromhex(code))
        guest.memory.write(DATA - 16, bytes(range(48)))
        guest.gprs.rcx, guest.gprs.rdx, guest.gprs.rbx = 3, 0x80, DATA
        guest.gprs.rsi, guest.gprs.rdi = DATA + 0x100, DATA
        guest.processor.set_watchpoints(watched)
        return guest

    return execute


def hit(guest):
    """Run until a watchpoint; return how far RIP is in the code."""
    assert guest.run() is Outcome.WATCHPOINT
    return guest.save.rip - CODE


@pytest.mark.parametrize(
    ("mode", "cpl"),
    [(REAL, 0), (VIRTUAL, 3), (PROTECTED_32, 0), (PAGED_32, 3), (LONG, 0), (LONG, 3), (COMPATIBILITY, 3)],
)
def test_a_store_is_seen_after_it_and_before_the_next_instruction(execute, mode, cpl):
    guest = execute("90 8903 41 90" if mode.bits != 64 else "90 8903 ffc1", WRITES, mode=mode, cpl=cpl)
    if mode.bits == 16:
        guest.memory.write(CODE, bytes.fromhex("90 8907 41 90"))  # MOV [BX], AX
    guest.save.rax = 0x1234
    assert hit(guest) == 3
    assert guest.processor.hit == WRITES
    assert guest.memory.read(DATA, 2) == b"\x34\x12"
    assert guest.gprs.rcx == 3
    assert guest.exit() == ExitCode.CPUID
    assert guest.gprs.rcx == 4


@pytest.mark.parametrize(
    ("code", "accesses"),
    [
        ("8903", "w"),  # MOV [EBX], EAX
        ("8b03", "r"),  # MOV EAX, [EBX]
        ("8803", "w"),  # MOV [EBX], AL
        ("668903", "w"),
        ("0103", "rw"),  # ADD [EBX], EAX
        ("f00103", "rw"),  # LOCK ADD [EBX], EAX
        ("8703", "rw"),  # XCHG [EBX], EAX
        ("3b03", "r"),  # CMP EAX, [EBX]
        ("ff33", "r"),  # PUSH [EBX]
        ("a4", "w"),  # MOVSB
        ("ae", "r"),  # SCASB
        ("6f", "-"),  # OUTSD, from ESI
        ("6d", "w"),  # INSD
        ("dd03", "r"),  # FLD qword [EBX]
        ("dd13", "w"),  # FST qword [EBX]
        ("0f2803", "r"),  # MOVAPS XMM0, [EBX]
        ("0f2903", "w"),  # MOVAPS [EBX], XMM0
        ("0fae03", "w"),  # FXSAVE [EBX]
        ("0fc70b", "rw"),  # CMPXCHG8B [EBX]
        ("0f0103", "w"),  # SGDT [EBX]
        ("ff13", "r"),  # CALL [EBX]
        ("90", "-"),
        ("8d03", "-"),  # LEA EAX, [EBX]
    ],
)
def test_instructions_of_many_kinds(execute, code, accesses):
    for watched in (WRITES, READS):
        guest = execute(code, watched)
        guest.save.cr4 |= CR4.OSFXSR
        guest.memory.write(DATA, (CODE + len(code) // 2).to_bytes(4, "little"))
        if "w" in accesses or ("r" in accesses and watched.reads):
            assert hit(guest) == len(code) // 2
        assert guest.exit() == ExitCode.CPUID


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 16, 100])
@pytest.mark.parametrize("address", [DATA, DATA + 1, DATA + 0xFFD])
def test_each_byte_is_watched_and_no_other(execute, size, address):
    """MOV [EBX], AL at each byte from three before it to three after."""
    guest = execute("8803 43 e2fb", Watchpoint(address, size, reads=False))  # LOOP
    guest.gprs.rbx, guest.gprs.rcx = address - 3, size + 6
    seen = []
    while guest.run() is Outcome.WATCHPOINT:
        seen.append(guest.gprs.rbx)
    assert seen == list(range(address, address + size))


@pytest.mark.parametrize("mode", [PROTECTED_32, PAGED_32, LONG])
@pytest.mark.parametrize("place", [DATA + 0xFF9, DATA + 0xFFC, DATA + 0xFFF])
@pytest.mark.parametrize("offset", range(-2, 10))
def test_an_access_that_crosses_pages(execute, mode, place, offset):
    guest = execute("dd1b 90", Watchpoint(place + offset, 1, reads=False), mode=mode)  # FSTP qword [EBX]
    guest.gprs.rbx = place
    if 0 <= offset < 8:
        assert hit(guest) == 2
    assert guest.exit() == ExitCode.CPUID


def test_two_watchpoints_are_told_apart_and_the_first_wins(execute):
    first, second = Watchpoint(DATA, 2, reads=False), Watchpoint(DATA + 1, 4, reads=False)
    guest = execute("8803 884302 884301", first, second)  # MOV [EBX], AL and so on
    assert (hit(guest), guest.processor.hit) == (2, first)
    assert (hit(guest), guest.processor.hit) == (5, second)
    assert (hit(guest), guest.processor.hit) == (8, first)


def test_lmsw_which_is_intercepted(execute):
    guest = execute("0f0133 90", READS)  # LMSW [EBX]
    guest.memory.write(DATA, b"\x01\x00")
    assert hit(guest) == 3


@pytest.mark.parametrize("watched", [WRITES, READS])
def test_iret_while_an_nmi_waits(execute, watched):
    guest = execute("cf 90", watched)  # IRETD
    guest.memory.write(DATA, struct.pack("<III", CODE + 1, CODE_32, 2))
    guest.save.rsp = DATA
    machine = guest.processor.machine
    machine.press_nmi()
    guest.processor.core.state.nmi_blocked = True
    guest.processor.kick()
    assert guest.run() is Outcome.KICKED
    if watched.reads:
        assert hit(guest) == 1
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == handler(Vector.NMI)


def test_rep_stops_after_each_iteration(execute):
    guest = execute("f3aa 90", WRITES)  # REP STOSB
    seen = []
    while guest.run() is Outcome.WATCHPOINT:
        seen.append((guest.save.rip - CODE, guest.gprs.rcx, guest.gprs.rdi - DATA))
    assert seen == [(0, 2, 1), (0, 1, 2), (2, 0, 3)]


def test_a_thousand_hits(execute):
    guest = execute("ff03 e2fc", WRITES)  # INC dword [EBX]; LOOP
    guest.gprs.rcx, guest.memory_before = 1000, guest.u32(DATA)
    for count in range(1000):
        assert hit(guest) == 2
        assert guest.u32(DATA) == guest.memory_before + count + 1
    assert guest.exit() == ExitCode.CPUID


def test_an_instruction_that_faults_hits_nothing(execute):
    """MOVSD that stores to a read-only page after its load."""
    watched = Watchpoint(DATA + 0x100, 4, reads=True)
    guest = execute("a5 90", watched, mode=PAGED_32, exceptions=1 << Vector.PF)
    guest.gprs.rdi = READ_ONLY
    assert guest.exit() == PF_EXIT
    assert guest.save.rip == CODE
    guest.gprs.rdi = DATA
    assert hit(guest) == 1


def test_a_hit_is_not_lost_where_the_next_instruction_cannot_be_fetched(execute):
    guest = execute("ff23", READS, mode=PAGED_32, exceptions=1 << Vector.PF)  # JMP [EBX]
    guest.memory.write(DATA, UNMAPPED.to_bytes(4, "little"))
    assert guest.run() is Outcome.WATCHPOINT
    assert guest.save.rip == UNMAPPED
    assert guest.exit() == PF_EXIT
    assert guest.control.exit_info_2 == UNMAPPED


@pytest.mark.parametrize("exceptions", [0, 1 << Vector.DB])
def test_a_trap_of_the_same_instruction_comes_with_the_next_run(execute, exceptions):
    guest = execute("8903 90", WRITES, exceptions=exceptions)
    guest.save.rflags |= RFLAGS.TF
    assert hit(guest) == 2
    if exceptions:
        assert guest.exit() == DB_EXIT
        assert guest.save.rip == CODE + 2
    else:
        assert guest.exit() == ExitCode.CPUID
        assert guest.save.rip == handler(Vector.DB)
        assert guest.u32(guest.save.rsp) == CODE + 2
    assert guest.save.dr6 == DR6.FIXED | DR6.BS


def test_the_guest_sees_nothing(execute):
    """PUSHFD; MOV EAX, DR6; MOV ECX, DR7; MOV EDX, DR0; a store between."""
    guest = execute("8903 9c 0f21f0 0f21f9 0f21c2 8903", WRITES)
    flags, rsp = guest.save.rflags, guest.save.rsp
    assert hit(guest) == 2
    assert hit(guest) == 14
    assert (guest.save.rax, guest.gprs.rcx, guest.gprs.rdx) == (guest.save.dr6, guest.save.dr7, 0)
    assert guest.save.dr6 == DR6.FIXED
    assert guest.u32(rsp - 4) == flags


def test_the_direction_is_that_of_the_last_cld_or_std(execute):
    """With an ADD before, after which Unicorn computes all flags for a hook."""
    guest = execute("fd 01c0 8903 fc 8903 fd 8903", WRITES)
    directions = [(hit(guest), bool(guest.save.rflags & RFLAGS.DF)) for _ in range(3)]
    assert directions == [(5, True), (8, False), (11, True)]


def test_the_direction_in_one_block(execute):
    guest = execute("fd 01c0 90 fc 8903", WRITES)
    assert hit(guest) == 7
    assert not guest.save.rflags & RFLAGS.DF


def test_a_breakpoint_of_the_guests_own_still_traps(execute):
    """MOV DR0, ESI; MOV DR7, ECX; store; NOP at ESI."""
    guest = execute("0f23c6 0f23f9 8903 90 90", WRITES, exceptions=1 << Vector.DB)
    guest.gprs.rsi, guest.gprs.rcx = CODE + 9, 0x402
    assert hit(guest) == 8
    assert guest.exit() == DB_EXIT
    assert (guest.save.rip, guest.save.dr6) == (CODE + 9, DR6.FIXED | 1)


def test_a_watchpoint_and_a_breakpoint_at_the_next_instruction(execute):
    guest = execute("8903 90 90", WRITES)
    guest.processor.set_breakpoints(frozenset({CODE + 2}))
    assert hit(guest) == 2
    assert guest.run() is Outcome.BREAKPOINT
    assert guest.save.rip == CODE + 2


ANOTHER = 0x9000


@pytest.mark.parametrize("mode", [PAGED_32, LONG])
def test_it_follows_an_entry_of_a_page_table_that_the_guest_writes(execute, mode):
    """The page of ANOTHER gets the memory of DATA, in the same block as the store: it was not mapped before."""
    entry = page_table_entry(ANOTHER)
    guest = execute(
        "890d" + entry.to_bytes(4, "little").hex() if mode.bits == 32 else "890c25" + entry.to_bytes(4, "little").hex(),
        mode=mode,
    )
    size = 6 if mode.bits == 32 else 7
    guest.memory.write(CODE + size, bytes.fromhex("8803 90"))
    before = guest.memory.read(entry, 8)
    guest.memory.write(entry, bytes(8))
    guest.gprs.rcx = DATA | before[0] | 0x63
    guest.gprs.rbx = ANOTHER + 5
    guest.processor.set_watchpoints((Watchpoint(ANOTHER + 4, 2, reads=False),))
    guest.save.rax = 0x77
    assert hit(guest) == size + 2
    assert guest.memory.read(DATA + 5, 1) == b"\x77"


def test_it_follows_cr3(execute):
    guest = execute("0f22d8 8803 90", mode=PAGED_32)  # MOV CR3, EAX; MOV [EBX], AL
    tables = 0x1_8000
    for old, new, size in (
        (guest.save.cr3, tables, 32),
        (0xD000, tables + 0x1000, 0x1000),
        (0xE000, tables + 0x2000, 0x1000),
    ):
        guest.memory.write(new, guest.memory.read(old, size))
    guest.memory.write(tables, (tables + 0x1001).to_bytes(8, "little"))
    guest.memory.write(tables + 0x1000, (tables + 0x2067).to_bytes(8, "little"))
    at = tables + 0x2000 + 8 * (ANOTHER >> 12)
    guest.memory.write(at, (DATA | 0x67).to_bytes(8, "little"))
    guest.save.rax, guest.gprs.rbx = tables, ANOTHER
    guest.processor.set_watchpoints((Watchpoint(ANOTHER, 1, reads=False),))
    guest.memory.write(DATA, b"\xff")
    assert hit(guest) == 5
    assert guest.memory.read(DATA, 1) == b"\x00"


@pytest.mark.parametrize("mode", [PAGED_32, LONG])
@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize(
    ("code", "writes", "stored"),
    [
        ("8803", True, 0x77),  # MOV [EBX], AL
        ("8a03", False, 0x10),  # MOV AL, [EBX]
        ("0003", True, 0x87),  # ADD [EBX], AL
        ("ff33", False, 0x10),  # PUSH [EBX]
        ("aa", True, 0x77),  # STOSB
        ("0f2903", True, 0),  # MOVAPS [EBX], XMM0
    ],
)
@pytest.mark.parametrize("address", [ANOTHER, DATA])
def test_the_same_memory_at_another_address_is_not_watched(execute, mode, reads, code, writes, stored, address):
    guest = execute(code, Watchpoint(ANOTHER, 1, reads=reads), mode=mode)
    guest.memory.write(page_table_entry(ANOTHER), guest.memory.read(page_table_entry(DATA), 8))
    guest.save.cr4 |= CR4.OSFXSR
    guest.gprs.rbx = guest.gprs.rdi = address
    guest.save.rax = 0x77
    if address == ANOTHER and (writes or reads):
        assert hit(guest) == len(code) // 2
    assert guest.exit() == ExitCode.CPUID
    assert guest.memory.read(DATA, 1)[0] == stored


@pytest.mark.parametrize("mode", [REAL, VIRTUAL, PROTECTED_32], ids=lambda mode: mode.name)
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_a_far_return_goes_to_what_it_pops(execute, mode, at, times):
    """RETF, with its offset or its selector watched."""
    size = mode.bits // 8
    watched = Watchpoint(DATA + at // 2 * size, 2, reads=True)
    guest = execute("cb", *[watched] * times, mode=mode, cpl=mode.cpls[-1] if mode is VIRTUAL else 0)
    guest.memory.write(DATA, (CODE + 16).to_bytes(size, "little") + guest.save.cs.selector.to_bytes(size, "little"))
    guest.save.rsp = DATA
    assert hit(guest) == 16
    assert guest.save.rsp == DATA + 2 * size
    assert guest.exit() == ExitCode.CPUID


def test_a20(execute):
    guest = execute("8803 90", Watchpoint(0x10_0000 + DATA, 1, reads=False))
    guest.gprs.rbx = 0x10_0000 + DATA
    guest.processor.machine.port_write(0x92, 1, 0)
    guest.processor.kick()
    assert guest.run() is Outcome.KICKED
    assert hit(guest) == 2
    assert guest.memory.read(DATA, 1) == b"\x00"


def test_memory_that_is_not_ram(execute):
    guest = execute("8903 90", Watchpoint(0xFEE0_0080, 4, reads=False))
    guest.gprs.rbx = 0xFEE0_0080
    assert hit(guest) == 2


def test_none_is_none(execute):
    guest = execute("8903 90", WRITES)
    assert hit(guest) == 2
    guest.processor.set_watchpoints(())
    guest.save.rip = CODE
    assert guest.exit() == ExitCode.CPUID


def test_a_watchpoint_without_bytes_is_refused(start):
    guest = start("cpuid")
    with pytest.raises(UsageError, match="at least one byte, not 0"):
        guest.processor.set_watchpoints((Watchpoint(DATA, 0, reads=False),))
