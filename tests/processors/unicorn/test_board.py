"""Several CPUs in turns. CPU 0 is in flat 32-bit code; CPU 1 begins where a startup IPI says, or as CPU 0."""

import struct
import time

import pytest

from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.asm import operands
from trapline.asm.operands import AX, CS, DS, EAX, EBX, ECX, EDX, Mem
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome
from trapline.machine.record import RECORD_SIZE, Record
from trapline.processors.unicorn.board import UnicornBoard
from trapline.testing.conformance.code import assemble
from trapline.testing.conformance.modes import CODE, PROTECTED_32, enter, image

MEMORY = 2 << 20
OTHER = 0x1_1000
"""Where CPU 1 starts; its data are in the same page."""
COUNT, FLAG = Mem(None, OTHER + 0x800, size=32), Mem(None, OTHER + 0x804, size=32)
NEAR_COUNT, NEAR_FLAG = Mem(None, 0x800, size=32), Mem(None, 0x804, size=32)
ICR, ICR2 = (Mem(None, 0xFEE0_0000 + at, size=32) for at in (0x300, 0x310))
START = (("mov", ICR2, 1 << 24), ("mov", ICR, 0x4500), ("mov", ICR, 0x4600 | OTHER >> 12))
OFF = (("mov", EDX, 0xF4), ("mov", EAX, 0), ("out", operands.DX, operands.AL), "stay:", ("jmp", "stay"))
REAL = (("mov", AX, CS), ("mov", DS, AX))
LIMIT = 20.0


@pytest.fixture
def board():
    """Return a function that makes a machine of two CPUs that are to execute listings."""
    boards = []

    def board(first, other=("hlt",), *, bits=16, cpus=2, more=(), seed=None):
        blobs = (CODE, assemble(32, *first).blob), (OTHER, assemble(bits, *other).blob)
        boot = Boot("test", "a test", [(0, image(PROTECTED_32)), *blobs, *more], load)
        boards.append(made := UnicornBoard(boot, MEMORY, cpus=cpus, output=lambda data: None, seed=seed))
        return made

    def load(save, gprs):
        enter(save, PROTECTED_32, 0, CODE)

    yield board
    for each in boards:
        each.pc.close()


def vm_of(board, mask=0, records=None):
    recorders = ()
    if records is not None:
        split = lambda data: [Record.from_buffer_copy(data, at) for at in range(0, len(data), RECORD_SIZE)]  # noqa: E731
        board.cpus[0].on_records(lambda data: records.extend(split(data)))
        recorders = (Recording(lambda data: records.extend(split(data))),)

    def load(save, gprs):
        enter(save, PROTECTED_32, 0, CODE)

    return Vm(board.cpus[0], board=board, mask=mask, enter=load, recorders=recorders)


def run(vm):
    return vm.run(time.monotonic() + LIMIT).reason


def u32(board, place):
    return struct.unpack("<I", board.cpus[0].memory.read(place.displacement, 4))[0]


@pytest.fixture
def both(board):
    """Return a function that makes a machine of which both CPUs are in flat 32-bit code; CPUID ends a run."""

    def both(first, other, **options):
        made = board(first, other, bits=32, **options)
        assert made.run(None) == (0, Outcome.RESET)
        for cpu, at in zip(made.cpus, (CODE, OTHER), strict=False):
            enter(cpu.vmcb.save, PROTECTED_32, 0, at)
            for code in (ExitCode.CPUID, ExitCode.VMRUN, ExitCode.SHUTDOWN):
                set_intercept(cpu.vmcb.control, code)
            cpu.core.is_started = True
        made._turns.begin()
        return made

    return both


@pytest.mark.parametrize("waits", ["pause", "nop"])
def test_a_cpu_is_started_and_its_exceptions_are_recorded(board, waits):
    skip = ("add", Mem(operands.ESP, 0, size=16), 2)
    made = board(
        [*START, "wait:", waits, ("cmp", COUNT, 5), ("jb", "wait"), *OFF],
        [*REAL, "again:", ("inc", NEAR_COUNT), "ud2", ("jmp", "again")],
        more=[(6 * 4, struct.pack("<HH", 0x500, 0)), (0x500, assemble(16, skip, "iret").blob)],
    )
    records = []
    vm = vm_of(made, FORCEABLE, records)
    assert run(vm) is StopReason.OFF
    assert made.cpus[0].exit_status == 1
    found = {(record.vcpu, record.vector, record.cs_base) for record in records}
    assert found == {(1, Vector.UD, OTHER)}
    assert len(records) >= 4


def test_code_that_another_cpu_changed_is_executed_as_it_is_now(both):
    """CPU 1 executes `mov eax, N` of its own page again and again, until CPU 0 has changed N."""
    made = both(
        [
            "wait:",
            "pause",
            ("cmp", COUNT, 1),
            ("jb", "wait"),
            ("mov", Mem(None, OTHER + 1, size=32), 7),
            "spin:",
            "pause",
            ("jmp", "spin"),
        ],
        ["again:", ("mov", EAX, 1), ("mov", COUNT, EAX), ("cmp", EAX, 7), ("jne", "again"), "cpuid"],
    )
    assert made.run(time.monotonic() + LIMIT) == (1, Outcome.VMEXIT)
    assert u32(made, COUNT) == 7


def test_a_changed_page_table_is_seen_after_invlpg(both):
    """CPU 1 reads through a page that CPU 0 maps elsewhere meanwhile."""
    tables, window = 0x2_0000, 0x40_0000
    table = struct.pack("<1024I", *(page << 12 | 3 for page in range(1024)))
    other = struct.pack("<I", 0x3_0003)
    directory = struct.pack("<2I", tables + 0x1003, tables + 0x2003)
    seen = Mem(None, window, size=32)
    made = both(
        [
            "wait:",
            "pause",
            ("cmp", COUNT, 1),
            ("jb", "wait"),
            ("mov", Mem(None, tables + 0x2000, size=32), 0x3_1003),
            ("mov", FLAG, 1),
            "spin:",
            "pause",
            ("jmp", "spin"),
        ],
        [
            ("mov", EAX, tables),
            ("mov", operands.CR3, EAX),
            ("mov", EAX, operands.CR0),
            ("or_", EAX, 0x8000_0000),
            ("mov", operands.CR0, EAX),
            ("mov", EBX, seen),
            ("mov", COUNT, 1),
            "wait:",
            "pause",
            ("cmp", FLAG, 1),
            ("jb", "wait"),
            ("invlpg", Mem(None, window)),
            ("mov", ECX, seen),
            "cpuid",
        ],
        more=[
            (tables, directory),
            (tables + 0x1000, table),
            (tables + 0x2000, other),
            (0x3_0000, b"old "),
            (0x3_1000, b"new "),
        ],
    )
    assert made.run(time.monotonic() + LIMIT) == (1, Outcome.VMEXIT)
    gprs = made.cpus[1].gprs
    assert (gprs.rbx.to_bytes(4, "little"), gprs.rcx.to_bytes(4, "little")) == (b"old ", b"new ")


def test_no_turn_ends_within_an_instruction(both):
    listing = [("mov", ECX, 50_000), "again:", ("inc", COUNT), ("dec", ECX), ("jne", "again"), "cpuid"]
    made = both(listing, listing)
    deadline = time.monotonic() + LIMIT
    first, outcome = made.run(deadline)
    assert outcome is Outcome.VMEXIT
    made.cpus[first].core.is_started = False
    assert made.run(deadline) == (1 - first, Outcome.VMEXIT)
    assert u32(made, COUNT) == 100_000


def test_all_halted_is_halted_and_names_the_first(board):
    vm = vm_of(board(["hlt"]))
    assert run(vm) is StopReason.HALTED
    assert vm.vcpu.number == 0
    assert [cpu.halted for cpu in vm._board.cpus] == [True, True]


def test_an_interrupt_of_the_other_cpu_ends_a_hlt(both):
    to_first = [("mov", ICR2, 0), ("mov", ICR, 0x4030)]
    made = both(
        [("mov", EAX, 0xFF), ("out", 0x21, operands.AL), ("mov", COUNT, 1), "sti", "hlt", "cpuid"],
        ["wait:", "pause", ("cmp", COUNT, 1), ("jb", "wait"), *to_first, "spin:", "pause", ("jmp", "spin")],
    )
    number, outcome = made.run(time.monotonic() + LIMIT)
    assert (number, outcome, made.cpus[0].vmcb.control.exit_code) == (0, Outcome.VMEXIT, ExitCode.CPUID)
    assert made.pc.devices.cpus[0].lapic.isr == 1 << 0x30


def test_an_init_ends_what_a_cpu_executes(board):
    made = board(
        [
            *START,
            "wait:",
            "pause",
            ("cmp", COUNT, 1),
            ("jb", "wait"),
            ("mov", FLAG, 1),
            *START,
            "again:",
            "pause",
            ("cmp", COUNT, 2),
            ("jb", "again"),
            *OFF,
        ],
        [*REAL, ("inc", NEAR_COUNT), "spin:", ("jmp", "spin")],
    )
    vm = vm_of(made)
    assert run(vm) is StopReason.OFF
    assert u32(made, COUNT) == 2


def test_a_step_executes_one_cpu_alone(both):
    count = ["again:", ("inc", COUNT), ("jmp", "again")]
    made = both(["spin:", ("inc", FLAG), ("jmp", "spin")], count)
    limit = time.monotonic() + LIMIT
    while not all(before := (u32(made, FLAG), u32(made, COUNT))) and time.monotonic() < limit:
        assert made.run(time.monotonic() + 0.02)[1] is Outcome.DEADLINE
    while u32(made, COUNT) == before[1] and time.monotonic() < limit:
        assert made.cpus[1].run(time.monotonic() + 0.02) is Outcome.DEADLINE
    assert (u32(made, FLAG) == before[0], u32(made, COUNT) > before[1]) == (True, True)


def test_a_kick_stops_both(both):
    made = both(["spin:", ("jmp", "spin")], ["spin:", ("jmp", "spin")])
    made.cpus[1].kick()
    assert made.run(None)[1] is Outcome.KICKED
    assert made.run(time.monotonic() + 0.01)[1] is Outcome.DEADLINE


def test_each_cpu_has_its_answers_of_cpuid(board):
    made = board(["hlt"], cpus=3)
    assert [cpu.cpuid(1, 0)[1] >> 16 for cpu in made.cpus] == [0x003, 0x103, 0x203]
    assert [cpu.cpuid(0xB, 1)[3] for cpu in made.cpus] == [0, 1, 2]


def test_the_same_seed_leads_to_the_same_run(board):
    skip = ("add", Mem(operands.ESP, 0, size=16), 2)
    traces = []
    for seed in (1, 1, 2):
        made = board(
            [*START, "wait:", "rdtsc", ("cmp", COUNT, 40), ("jb", "wait"), *OFF],
            [*REAL, "again:", ("inc", NEAR_COUNT), "ud2", ("jmp", "again")],
            more=[(6 * 4, struct.pack("<HH", 0x500, 0)), (0x500, assemble(16, skip, "iret").blob)],
            seed=seed,
        )
        records = []
        assert run(vm_of(made, FORCEABLE, records)) is StopReason.OFF
        assert 0 < made.cpus[0].tsc < 1_000_000
        traces.append([bytes(record) for record in records])
    assert traces[0] == traces[1] != traces[2]
