"""Status flags where instructions have hooks: the same as without."""

import pytest

from trapline.arch import paging
from trapline.arch.exits import ExitCode
from trapline.arch.registers import EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.machine.processor import Outcome, Watchpoint
from trapline.testing.conformance.modes import (
    CODE,
    DATA,
    LONG,
    PAGED_32,
    PROTECTED_32,
    READ_ONLY,
    UNMAPPED,
    handler,
    page_table_entry,
)

ADDED = RFLAGS.CF | RFLAGS.ZF | RFLAGS.PF | RFLAGS.OF
"""Status flags after an ADD of 80000000h to itself."""
ELSEWHERE = Watchpoint(DATA + 0x800, 4, reads=True)
WATCHED = [(ELSEWHERE,), (Watchpoint(DATA, 4, reads=False),), (Watchpoint(DATA, 4, reads=True),)]
ADD = "01c0"  # ADD EAX, EAX


@pytest.fixture
def execute(start):
    """Return a function that starts a guest before machine code that follows an ADD."""

    def execute(code, *watched, mode=PROTECTED_32, cpl=0, exceptions=0):
        guest = start(*["nop"] * 40, "cpuid", mode=mode, cpl=cpl, exceptions=exceptions)
        guest.memory.write(CODE, bytes.fromhex(ADD + code))
        guest.memory.write(DATA - 16, bytes(48))
        guest.gprs.rcx, guest.gprs.rdx, guest.gprs.rbx = UNMAPPED, 0x80, DATA
        guest.gprs.rsi, guest.gprs.rdi = DATA + 0x100, DATA
        guest.save.rax = 0x8000_0000
        guest.processor.set_watchpoints(watched)
        return guest

    return execute


def final_state(guest):
    """Run to the exit, past all watchpoints."""
    while guest.run() is Outcome.WATCHPOINT:
        pass
    save, memory = guest.save, guest.memory
    registers = save.rflags, save.rip, save.rax, guest.gprs.rcx, guest.gprs.rdi
    return guest.control.exit_code, registers, memory.read(DATA - 16, 48), memory.read(save.rsp, 16)


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(
    "code",
    [
        "1103",  # ADC [EBX], EAX
        "1303",  # ADC EAX, [EBX]
        "d113",  # RCL dword [EBX], 1
        "7202 9090",  # JC
        "8903",  # MOV [EBX], EAX
        "0f9203",  # SETC [EBX]
        "ee 9c",  # OUT DX, AL; PUSHFD
        "ec 9c",  # IN AL, DX; PUSHFD
        "e7219c",  # OUT 21h, EAX
        "8f03",  # POP [EBX]
        "a5 9c",  # MOVSD; PUSHFD
        "ae",  # SCASB
        "3903",  # CMP [EBX], EAX
    ],
)
def test_an_instruction_that_accesses_memory_or_a_port(execute, code, watched):
    assert final_state(execute(code, *watched)) == final_state(execute(code))


@pytest.mark.parametrize("watched", WATCHED)
def test_an_instruction_that_is_repeated(execute, watched):
    states = []
    for some in (watched, ()):
        guest = execute("f3aa", *some)  # REP STOSB
        guest.gprs.rcx = 3
        states.append(final_state(guest))
        assert guest.save.rflags & RFLAGS.STATUS == ADDED
    assert states[0] == states[1]


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("intercepted", [False, True])
@pytest.mark.parametrize("mode", [PAGED_32, LONG])
@pytest.mark.parametrize(
    ("code", "vector"),
    [
        ("8901", Vector.PF),  # MOV [ECX], EAX
        ("8b01", Vector.PF),
        ("0101", Vector.PF),  # ADD [ECX], EAX
        ("1101", Vector.PF),  # ADC [ECX], EAX
        ("ff31", Vector.PF),  # PUSH [ECX]
        ("8f01", Vector.PF),
        ("8b03 0301", Vector.PF),  # MOV EAX, [EBX]; ADD EAX, [ECX]
        ("0f0b", Vector.UD),
        ("b8f8ff0000 8ed8", Vector.GP),  # MOV EAX, FFF8h; MOV DS, EAX
        ("66" * 15 + "90", Vector.GP),  # too long
        ("f2ae" + "66" * 15 + "90", Vector.GP),  # REPNE SCASB, after which a block ends
        ("ffe1", Vector.PF),  # JMP ECX
    ],
)
def test_an_instruction_that_faults(execute, mode, code, vector, watched, intercepted):
    exceptions = 1 << vector if intercepted else 0
    hooked = execute(code, *watched, mode=mode, exceptions=exceptions)
    state = final_state(hooked)
    assert state == final_state(execute(code, mode=mode, exceptions=exceptions))
    assert hooked.control.exit_code == (0x40 + vector if intercepted else ExitCode.CPUID)
    assert hooked.save.rip == handler(vector) or intercepted


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("code", ["", "8b", "8b0dbeba", "72"])
def test_an_instruction_that_cannot_be_fetched(execute, code, watched):
    """JMP EDX to a REPNE SCASB, after which a block ends, before a page that is not mapped."""
    last = bytes.fromhex("f2ae" + code)
    guest = execute("ffe2", *watched, mode=PAGED_32, exceptions=1 << Vector.PF)
    guest.gprs.rdx = UNMAPPED - len(last)
    guest.memory.write(UNMAPPED - len(last), last)
    final_state(guest)
    assert (guest.save.rip, guest.control.exit_info_2) == (guest.gprs.rdx + 2, UNMAPPED)
    assert guest.save.rflags & RFLAGS.STATUS == RFLAGS.ZF | RFLAGS.PF


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("reason", ["NX", "supervisor"])
def test_an_instruction_that_may_not_be_executed(execute, reason, watched):
    """JMP EDX to a REPNE SCASB, and on into a page that can be read."""
    guest = execute("ffe2", *watched, mode=LONG, cpl=3, exceptions=1 << Vector.PF)
    guest.gprs.rdx = READ_ONLY - 2
    guest.memory.write(READ_ONLY - 2, bytes.fromhex("f2ae 90"))
    at = page_table_entry(READ_ONLY)
    entry = int.from_bytes(guest.memory.read(at, 8), "little")
    if reason == "NX":
        guest.save.efer |= EFER.NXE
        entry |= paging.NX
    else:
        entry &= ~paging.US
    guest.memory.write(at, entry.to_bytes(8, "little"))
    final_state(guest)
    assert (guest.save.rip, guest.control.exit_info_2) == (READ_ONLY, READ_ONLY)
    assert guest.save.rflags & RFLAGS.STATUS == RFLAGS.ZF | RFLAGS.PF


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("code", ["ee", "ec", "e721"])
@pytest.mark.parametrize("cpl", [0, 3])
def test_a_port_access_that_is_permitted_or_not(execute, code, watched, cpl):
    """After a SAHF, ADC and STC, which leave the flags in three ways."""
    for before in ("11c8", "9e11c8", "40d5eb00f5", "9ef00103 01c0"):
        states = [
            final_state(execute(before + code, *some, cpl=cpl, exceptions=1 << Vector.GP)) for some in (watched, ())
        ]
        assert states[0] == states[1]
        assert states[0][0] == (0x40 + Vector.GP if cpl else ExitCode.CPUID)


@pytest.mark.parametrize("intercepted", [False, True])
@pytest.mark.parametrize("code", ["8901", "1101"])
def test_an_instruction_that_faults_where_a_breakpoint_was(execute, code, intercepted):
    exceptions = 1 << Vector.PF if intercepted else 0
    guest = execute(code, mode=PAGED_32, exceptions=exceptions)
    guest.processor.set_breakpoints(frozenset({CODE + 2}))
    assert guest.run() is Outcome.BREAKPOINT
    assert guest.save.rflags & RFLAGS.STATUS == ADDED
    guest.save.rip, guest.save.rax = CODE, 0x8000_0000
    guest.processor.set_breakpoints(frozenset())
    assert final_state(guest) == final_state(execute(code, mode=PAGED_32, exceptions=exceptions))


def test_a_store_to_a_read_only_page_after_a_load_that_is_watched(execute):
    """MOVSD: the hook's callback comes before the fault."""
    watched = Watchpoint(DATA + 0x100, 4, reads=True)
    guest = execute("a5", watched, mode=PAGED_32, exceptions=1 << Vector.PF)
    guest.gprs.rdi = READ_ONLY
    assert guest.exit() == 0x40 + Vector.PF
    assert guest.save.rflags & RFLAGS.STATUS == ADDED
