import iced_x86 as iced
import pytest

from trapline.arch import paging
from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import Record
from trapline.processors.qemu import layout
from trapline.processors.qemu.layout import Mailbox, Tables, VectorPlan
from trapline.processors.qemu.monitor import monitor

BASE = layout.base_for(40)
ADDRESS = BASE + layout.CODE_AT
TABLES = layout.TABLES_AT - layout.MAILBOX_AT
M, R = iced.Mnemonic, iced.Register
FROM_OUTSIDE = {monitor.ENTRY, monitor.JOIN, monitor.NMI_HANDLER, monitor.ABSORB, monitor.RDMSR, monitor.WRMSR}


@pytest.fixture(scope="module")
def code():
    return monitor.build()


@pytest.fixture
def instructions(code, decode):
    return decode(code.assemble(ADDRESS), 64, ADDRESS)


def memory_operands(instructions):
    for instruction in instructions:
        for place in range(instruction.op_count):
            guests = instruction.memory_base in (R.RSI, R.RDI, R.RDX, R.RCX, R.R8, R.R9)
            if instruction.op_kind(place) == iced.OpKind.MEMORY and instruction.mnemonic != M.LEA and not guests:
                yield instruction, place


def size_of_access(instruction):
    if instruction.mnemonic in (M.LGDT, M.LIDT):
        return 10
    return iced.MemorySizeExt.size(instruction.memory_size)


def test_it_fits_its_pages(code):
    assert len(code.assemble(ADDRESS)) <= layout.TABLES_AT - layout.CODE_AT


def test_every_instruction_is_reached(code, instructions):
    by_address = {instruction.ip: instruction for instruction in instructions}
    labels = code.labels(ADDRESS)
    todo = [labels[name] for name in FROM_OUTSIDE]
    reached = set()
    while todo:
        ip = todo.pop()
        if ip in reached:
            continue
        reached.add(ip)
        instruction = by_address[ip]
        if instruction.is_jmp_short_or_near or instruction.is_jcc_short_or_near:
            todo.append(instruction.near_branch_target)
        if instruction.mnemonic not in (M.JMP, M.IRETQ, M.INT3, M.VMMCALL):
            todo.append(instruction.next_ip)
    assert reached == set(by_address)
    assert set(labels.values()) <= reached


def test_every_label_is_used(code, instructions):
    targets = {
        instruction.near_branch_target
        for instruction in instructions
        if instruction.is_jmp_short_or_near or instruction.is_jcc_short_or_near
    }
    assert {name for name, place in code.labels(ADDRESS).items() if place not in targets} <= FROM_OUTSIDE


def test_every_access_is_a_declared_field(instructions, fields):
    places = {
        R.RAX: [(0, fields(Vmcb))],
        R.RSP: [(0, fields(Mailbox)), (TABLES, fields(Tables))],
        R.RBX: [(0, fields(Record)), (layout.MAILBOX_AT, fields(Mailbox))],
    }
    seen = set()
    for instruction, _ in memory_operands(instructions):
        size, displacement = size_of_access(instruction), instruction.memory_displacement
        assert instruction.memory_base in places, f"{instruction}"
        for start, declared in places[instruction.memory_base]:
            covered = [declared.get(displacement - start + byte) for byte in range(size)]
            if instruction.mnemonic in (M.LGDT, M.LIDT, M.FXSAVE, M.FXRSTOR):
                covered = covered if None not in covered else []
            elif None in covered or len(set(covered)) != 1:
                covered = []
            if covered:
                seen.add(covered[0][0])
                break
        else:
            pytest.fail(f"{instruction} touches no declared field")
    assert {"control.event_inj", "control.exit_code", "save.cr2", "owner", "command", "ring_head"} <= seen


def test_indexed_accesses_are_fields_of_a_plan(instructions, fields):
    declared = fields(VectorPlan)
    plans = offset_of(Mailbox, "plans")
    indexed = [one for one, _ in memory_operands(instructions) if one.memory_index != R.NONE]
    registers = [one for one in indexed if one.memory_index == R.RBX]
    assert [(one.memory_displacement, one.memory_index_scale) for one in registers] == [(offset_of(Mailbox, "gprs"), 8)]
    indexed = [one for one in indexed if one not in registers]
    assert indexed
    for instruction in indexed:
        assert (instruction.memory_base, instruction.memory_index) == (R.RSP, R.RCX)
        assert instruction.memory_index_scale == 1
        path, offset, size = declared[instruction.memory_displacement - plans]
        assert (instruction.memory_displacement - plans, size_of_access(instruction)) == (offset, size), path
    assert {declared[one.memory_displacement - plans][0] for one in indexed} == {
        "event",
        "arm",
        "rflags",
        "flags",
        "policy",
    }


def test_every_register_is_saved_and_restored(instructions):
    names = ["rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16))]
    saved, restored = set(), set()
    for instruction, place in memory_operands(instructions):
        displacement = instruction.memory_displacement - offset_of(Mailbox, "gprs")
        if instruction.memory_base == R.RSP and 0 <= displacement < size_of(Gprs) and instruction.mnemonic == M.MOV:
            register = instruction.op_register(1 - place)
            if iced.RegisterExt.size(register) == 8:
                (saved if place == 0 else restored).add((displacement, register))
    expected = {(offset_of(Gprs, name), getattr(R, name.upper())) for name in names}
    assert saved - {(offset_of(Gprs, name), R.R8) for name in ("rax", "rsp")} == expected  # copies of the VMCB's
    assert expected <= restored  # records take some by way of RDX


def test_the_record_is_complete(instructions, fields):
    written = {
        fields(Record)[one.memory_displacement][0]
        for one, place in memory_operands(instructions)
        if one.memory_base == R.RBX and place == 0 and one.memory_displacement < size_of(Record)
    }
    assert written == {path for path, *_ in fields(Record).values()} - {"vcpu"}


def test_it_writes_nothing_to_the_guests_memory(instructions):
    accesses = [one for one in instructions if one.memory_base == R.RSI]
    assert {(one.mnemonic, one.op0_kind) for one in accesses} == {(M.MOV, iced.OpKind.REGISTER)}
    assert {one.memory_displacement for one in accesses} == {0, (1 << 64) - 4}  # the end of an immediate


def test_it_uses_no_stack_and_calls_nothing(instructions):
    stack = {M.PUSH, M.POP, M.CALL, M.RET, M.PUSHFQ, M.POPFQ, M.ENTER, M.LEAVE}
    assert not [one for one in instructions if one.mnemonic in stack]


def test_it_runs_at_any_address(code):
    assert code.assemble(ADDRESS) == code.assemble(layout.CODE_AT)


def test_its_addresses_are_regions_of_the_shared_memory(instructions):
    addresses = [one for one in instructions if one.mnemonic == M.LEA and one.memory_base == R.RSP]
    places = {one.memory_displacement + layout.MAILBOX_AT & (1 << 64) - 1 for one in addresses}
    started = {layout.ENTRY_TABLES_AT, layout.JOIN_AT}
    assert places == {layout.HSAVE_AT, layout.VMCB_AT, layout.ASIDE_AT, layout.RING_AT, layout.DMA_AT} | started
    wide = [one for one in instructions if one.op_count == 2 and one.op1_kind == iced.OpKind.IMMEDIATE64]
    assert paging.ADDRESS in [one.immediate(1) for one in wide]  # a mask
    assert all(one.immediate(1) < BASE or one.immediate(1) == paging.ADDRESS for one in wide)


def test_svm_instructions_stand_where_they_must(instructions):
    mnemonics = [one.mnemonic for one in instructions]
    assert mnemonics.count(M.VMLOAD) == mnemonics.count(M.VMSAVE) == 1
    _, run = (place for place, mnemonic in enumerate(mnemonics) if mnemonic == M.VMRUN)
    # VMRUN takes RAX, #VMEXIT restores it and RSP: nothing between may need more than the three registers.
    before = instructions[run - 1]
    assert (before.mnemonic, before.memory_base) == (M.MOV, R.RSP)
    assert [one.memory_base for one in instructions[run + 1 : run + 4]] == [R.RSP] * 3


def test_what_runs_aside_is_one_instruction_and_the_exit(code, instructions):
    labels = code.labels(ADDRESS)
    by_address = {one.ip: one for one in instructions}
    for name, mnemonic in ((monitor.ABSORB, M.NOP), (monitor.RDMSR, M.RDMSR), (monitor.WRMSR, M.WRMSR)):
        one = by_address[labels[name]]
        assert (one.mnemonic, by_address[one.next_ip].mnemonic) == (mnemonic, M.VMMCALL)


def test_gif_is_never_set_outside_a_guest(instructions):
    """An SMI would be taken, whose handler is the guest's."""
    assert not [one for one in instructions if one.mnemonic == M.STGI]
