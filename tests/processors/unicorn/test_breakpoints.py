import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import EAX, EBX, ECX, ESI, Mem
from trapline.machine.linear import code_address
from trapline.machine.processor import Outcome
from trapline.testing.conformance.modes import (
    CODE,
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

TIMES = 1000
LOOP = ("mov", ECX, TIMES), "again:", ("inc", EBX), "next:", ("dec", ECX), ("jne", "again"), "end:", "cpuid"


def at(guest, *names):
    guest.processor.set_breakpoints(frozenset(guest.labels[name] for name in names))


def stops_at(guest, name):
    """Run until a breakpoint, and say whether it is that of a label."""
    assert guest.run() is Outcome.BREAKPOINT
    return code_address(guest.save) == guest.labels[name]


@pytest.mark.parametrize(
    ("mode", "base", "times"),
    [
        (REAL, 0x3FF0, TIMES),
        (VIRTUAL, 0x3FF0, TIMES),
        (PROTECTED_32, 0, TIMES),
        (LONG, 0, TIMES),
        (REAL, 0, 3),
        (PAGED_32, 0, 3),
        (PAGED_32, 0x3FF0, 3),
        (COMPATIBILITY, 0, 3),
    ],
)
def test_a_loop_hits_each_time(start, mode, base, times):
    lines = ("mov", ECX, times), *LOOP[1:]
    guest = start(*lines, mode=mode, cpl=mode.cpls[-1])
    selector = base >> 4 if mode in (REAL, VIRTUAL) else guest.save.cs.selector
    guest.save.cs.selector, guest.save.cs.base, guest.save.rip = selector, base, CODE - base
    at(guest, "again")
    for count in range(times):
        assert stops_at(guest, "again")
        assert guest.gprs.rbx == count
        at(guest, "next")
        assert stops_at(guest, "next")
        assert guest.gprs.rbx == count + 1
        at(guest, "again")
    assert guest.exit() == ExitCode.CPUID
    assert code_address(guest.save) == guest.labels["end"]


def test_the_first_instruction_of_a_run_hits_again_and_again(start):
    guest = start("at:", ("inc", EBX), "end:", "cpuid")
    at(guest, "at")
    for _ in range(3):
        assert stops_at(guest, "at")
    assert guest.gprs.rbx == 0
    at(guest)
    assert guest.exit() == ExitCode.CPUID
    assert guest.gprs.rbx == 1


def test_nothing_after_a_breakpoint_happens_before_it_is_passed(start):
    store = ("mov", Mem(None, DATA, size=32), EBX)
    guest = start(("mov", EBX, 7), ("add", EBX, EBX), "at:", store, ("inc", EBX), ("push", EBX), "end:", "cpuid")
    guest.memory.write(DATA, bytes(4))
    rsp = guest.save.rsp
    at(guest, "at")
    assert stops_at(guest, "at")
    assert (guest.gprs.rbx, guest.u32(DATA), guest.save.rsp) == (14, 0, rsp)
    at(guest)
    assert guest.exit() == ExitCode.CPUID
    assert (guest.gprs.rbx, guest.u32(DATA), guest.u32(rsp - 4)) == (15, 14, 15)


STATUS = RFLAGS.CF | RFLAGS.PF | RFLAGS.AF | RFLAGS.ZF | RFLAGS.SF | RFLAGS.OF


@pytest.mark.parametrize("direction", ["cld", "std"])
def test_the_flags_are_those_before_the_instruction(start, direction):
    guest = start(
        direction, ("mov", EAX, 0x8000_0000), ("add", EAX, EAX), "at:", ("inc", EAX), ("add", EAX, 5), "cpuid"
    )
    at(guest, "at")
    assert stops_at(guest, "at")
    assert guest.save.rflags & STATUS == RFLAGS.CF | RFLAGS.ZF | RFLAGS.PF | RFLAGS.OF
    assert bool(guest.save.rflags & RFLAGS.DF) == (direction == "std")


def test_a_guest_reads_its_code_and_pushes_its_flags_as_ever(start):
    lines = ("mov", ESI, Mem(None, CODE, size=32)), "at:", "pushfd", "end:", "cpuid"
    guest = start(*lines)
    before = bytes(guest.memory.read(CODE, 4))
    rsp, flags = guest.save.rsp, guest.save.rflags
    at(guest, "at", "end")
    assert stops_at(guest, "at")
    assert guest.gprs.rsi.to_bytes(8, "little") == before + bytes(4)
    dr = guest.save.dr6, guest.save.dr7
    at(guest, "end")
    assert stops_at(guest, "end")
    assert guest.u32(rsp - 4) == flags
    assert (guest.save.dr6, guest.save.dr7) == dr
    assert guest.memory.read(CODE, 4) == before


def test_a_breakpoint_inside_an_instruction_is_none(start):
    guest = start("at:", ("mov", EAX, 0x9090_9090), "cpuid")
    guest.processor.set_breakpoints(frozenset({guest.labels["at"] + 1}))
    assert guest.exit() == ExitCode.CPUID


def test_code_that_was_executed_before_gets_its_breakpoint(start):
    guest = start(("mov", ECX, 2), "again:", ("inc", EBX), ("dec", ECX), ("jne", "again"), "cpuid")
    guest.exit()
    guest.save.rip = CODE
    at(guest, "again")
    assert stops_at(guest, "again")


def test_code_that_is_written_anew_keeps_its_breakpoint(start):
    guest = start("at:", ("inc", EBX), "cpuid")
    at(guest, "at")
    assert stops_at(guest, "at")
    guest.memory.write(guest.labels["at"], b"\x90")
    assert stops_at(guest, "at")


def test_an_event_to_inject_comes_before(start):
    guest = start("at:", ("inc", EBX), "cpuid")
    at(guest, "at")
    guest.control.event_inj = encode(Event(Vector.UD, EventType.EXCEPTION))
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == handler(Vector.UD)


def test_a_breakpoint_in_a_handler(start):
    guest = start("ud2", "cpuid", mode=LONG, cpl=3)
    guest.processor.set_breakpoints(frozenset({handler(Vector.UD)}))
    assert guest.run() is Outcome.BREAKPOINT
    assert (guest.save.rip, guest.save.cpl) == (handler(Vector.UD), 0)


@pytest.mark.parametrize("exceptions", [0, 1 << Vector.UD])
def test_an_instruction_that_would_fault_is_stopped_before(start, exceptions):
    guest = start("at:", "ud2", "cpuid", exceptions=exceptions)
    at(guest, "at")
    assert stops_at(guest, "at")


def test_hlt_and_the_shadow_of_sti(start):
    guest = start("sti", "at:", "hlt", "cpuid")
    at(guest, "at")
    assert stops_at(guest, "at")
    assert guest.control.interrupt_shadow == 1


@pytest.mark.parametrize("mode", [PAGED_32, LONG], ids=lambda mode: mode.name)
@pytest.mark.parametrize("neighbour", [READ_ONLY - 0x1000, None])
def test_the_first_instruction_of_a_page(start, mode, neighbour):
    """Whether or not the pages beside it are mapped."""
    guest = start("cpuid", mode=mode)
    page = READ_ONLY
    if neighbour is not None:
        guest.memory.write(page_table_entry(neighbour), bytes(8))
    guest.memory.write(page, b"\x90\x0f\xa2")
    guest.save.rip = page
    guest.processor.set_breakpoints(frozenset({page}))
    assert guest.run() is Outcome.BREAKPOINT
    assert guest.save.rip == page
    guest.processor.set_breakpoints(frozenset())
    assert guest.exit() == ExitCode.CPUID
    assert guest.save.rip == page + 1


def test_a_page_that_is_not_mapped_faults_first(start):
    guest = start("cpuid", mode=PAGED_32, exceptions=1 << Vector.PF)
    guest.save.rip = UNMAPPED
    guest.processor.set_breakpoints(frozenset({UNMAPPED}))
    assert guest.exit() == 0x40 + Vector.PF
    assert guest.control.exit_info_2 == UNMAPPED


def test_rep_hits_before_each_iteration(start):
    guest = start(("mov", ECX, 3), ("mov", ESI, DATA), "at:", "nop", "nop", "cpuid")
    guest.memory.write(guest.labels["at"], b"\xf3\xac")  # REP LODSB
    at(guest, "at")
    for left in (3, 2, 1):
        assert stops_at(guest, "at")
        assert guest.gprs.rcx == left
        at(guest)
        guest.save.rflags |= RFLAGS.TF
        guest.control.intercept_exceptions |= 1 << Vector.DB
        assert guest.exit() == 0x40 + Vector.DB
        guest.save.rflags &= ~RFLAGS.TF
        at(guest, "at")
    assert guest.gprs.rcx == 0


def test_a_thousand_breakpoints(start):
    guest = start(*LOOP)
    guest.processor.set_breakpoints(frozenset(range(0x2_0000, 0x2_0000 + TIMES)) | {guest.labels["next"]})
    assert stops_at(guest, "next")
    at(guest)
    assert guest.exit() == ExitCode.CPUID


def test_they_outlive_a_reset(start):
    guest = start("cpuid")
    guest.processor.set_breakpoints(frozenset({CODE}))
    state = bytes(guest.processor.vmcb)
    guest.processor.shutdown()
    assert guest.run() is Outcome.RESET
    memoryview(guest.processor.vmcb).cast("B")[:] = state
    assert guest.run() is Outcome.BREAKPOINT


def test_a_hook_that_is_not_wanted_any_more_is_taken_away_where_it_costs_time(start):
    guest = start(*LOOP)
    at(guest, "again")
    assert stops_at(guest, "again")
    at(guest)
    hooks = guest.processor.core.breakpoints._numbers
    assert hooks
    assert guest.exit() == ExitCode.CPUID
    assert not hooks


@pytest.mark.parametrize("call", ["syscall", "sysenter"])
def test_a_system_call_after_a_breakpoint_has_not_begun(start, call):
    guest = start("at:", call, "cpuid", mode=LONG)
    cr0, cr3 = guest.save.cr0, guest.save.cr3
    at(guest, "at")
    assert stops_at(guest, "at")
    assert (guest.save.cr0, guest.save.cr3) == (cr0, cr3)
