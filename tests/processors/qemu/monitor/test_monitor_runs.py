"""The monitor's machine code, executed: an interpreter of its few instructions, and guests that are scripts."""

import operator
from functools import cache

import iced_x86 as iced
import pytest

from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.devices import lapic
from trapline.machine.record import RECORD_SIZE, Record
from trapline.processors.qemu import layout, pci
from trapline.processors.qemu.layout import RING_AT, RING_RECORDS, Command, Owner, Policy
from trapline.processors.qemu.monitor import monitor

BASE = layout.base_for(40)
ADDRESS = BASE + layout.CODE_AT
M, R, KIND = iced.Mnemonic, iced.Register, iced.OpKind
UD, NP, GP, PF = Vector.UD, Vector.NP, Vector.GP, Vector.PF
RAM = 0x10000
APIC = range(lapic.BASE, lapic.BASE + 0x1000)
IGNORED = (M.LGDT, M.LIDT, M.WRMSR, M.RDMSR, M.VMLOAD, M.VMSAVE, M.STGI, M.CLGI, M.NOP, M.CPUID)
COMPUTED = {
    M.MOV: lambda old, new: new,
    M.ADD: operator.add,
    M.SUB: operator.sub,
    M.AND: operator.and_,
    M.OR: operator.or_,
    M.SHL: operator.lshift,
    M.SHR: operator.rshift,
    M.INC: lambda old, _: old + 1,
    M.DEC: lambda old, _: old - 1,
}
COMPARED = {
    M.CMP: lambda first, second: (first == second, first < second),
    M.TEST: lambda first, second: (not first & second, False),
    M.BT: lambda first, second: (False, bool(first >> second & 1)),
}
JUMPS = {
    M.JMP: lambda zero, carry: True,
    M.JE: lambda zero, carry: zero,
    M.JNE: lambda zero, carry: not zero,
    M.JB: lambda zero, carry: carry,
    M.JAE: lambda zero, carry: not carry,
    M.JA: lambda zero, carry: not (zero or carry),
}


@cache
def assembled():
    """Return the monitor's instructions by address, and its entry."""
    code = monitor.build()
    decoder = iced.Decoder(64, code.assemble(ADDRESS), ip=ADDRESS)
    return {instruction.ip: instruction for instruction in decoder}, code.labels(ADDRESS)[monitor.ENTRY]


class Cpu:
    """Executes the monitor; the guest and Python are methods of scripts that it calls."""

    def __init__(self, memory):
        self._code, self._entry = assembled()
        self.shared, self._memory = layout.SharedMemory(memory), memory
        self.vmcb, self.mailbox = self.shared.vmcb, self.shared.mailbox
        self.registers = {R.CR0: CR0.PG | CR0.PE, R.CR4: CR4.PAE, R.RAX: ADDRESS}
        self.bridge = 0x1237
        self.outputs, self.tsc = [], 0
        self.apic = []
        """The stores to the local APIC, by address and value."""
        self.ram = bytearray(RAM)
        self.on_pause = self.on_output = lambda: None
        self.asked = 0
        self.mailbox.attended = 1

    def set(self, name, value):
        """Give the guest's next exit a register."""
        self.registers[getattr(R, name.upper())] = value

    def get(self, name):
        """Return a register as the guest has it."""
        return self.registers[getattr(R, name.upper())]

    def run(self, *guest):
        """Enter the monitor as the firmware does; each step of the guest ends in an exit, the last ends the run."""
        steps = iter(guest)
        flags, ip, self._left = (False, False), self._entry, 1_000_000
        while True:
            self._left -= 1
            assert self._left, "the monitor does not come to an end"
            one = self._code[ip]
            ip = one.next_ip
            if one.mnemonic in COMPARED:
                flags = COMPARED[one.mnemonic](self._read(one, 0), self._read(one, 1))
            elif one.mnemonic in JUMPS:
                ip = one.near_branch_target if JUMPS[one.mnemonic](*flags) else ip
            elif one.mnemonic == M.VMRUN:
                step = next(steps, None)
                if step is None:
                    return
                step(self)
            else:
                before = self._read(one, 0) if one.mnemonic == M.ADD else 0
                self._execute(one)
                if one.mnemonic == M.DEC:
                    flags = (not self._read(one, 0), flags[1])
                elif one.mnemonic == M.ADD:
                    flags = (not self._read(one, 0), self._read(one, 0) < before)

    def _execute(self, one):
        if one.mnemonic in COMPUTED:
            second = self._read(one, 1) if one.op_count > 1 else 0
            old = 0 if one.mnemonic == M.MOV else self._read(one, 0)
            self._write(one, 0, COMPUTED[one.mnemonic](old, second))
        elif one.mnemonic == M.BSWAP:
            size = iced.RegisterExt.size(one.op0_register)
            self._write(one, 0, int.from_bytes(self._read(one, 0).to_bytes(size, "little"), "big"))
        elif one.mnemonic == M.LEA:
            self._write(one, 0, self._place(one)[0])
        elif one.mnemonic == M.XCHG:
            first, second = self._read(one, 0), self._read(one, 1)
            self._write(one, 0, second)
            self._write(one, 1, first)
        elif one.mnemonic == M.OUT:
            self.outputs.append((self.registers[R.RDX] & 0xFFFF, self._read(one, 1)))
            self.on_output()
        elif one.mnemonic == M.IN:
            self._write(one, 0, self.bridge << 16 | 0x8086)
        elif one.mnemonic == M.RDTSC:
            self.tsc += 1
            self.registers[R.RDX], self.registers[R.RAX] = self.tsc >> 32, self.tsc & 0xFFFF_FFFF
        elif one.mnemonic == M.PAUSE:
            self.on_pause()
            if self.mailbox.owner == Owner.HOST:
                self.asked += 1
                self.mailbox.owner, self.mailbox.command = Owner.MONITOR, Command.RESUME
        else:
            assert one.mnemonic in IGNORED, f"{one}"

    def _place(self, one):
        address = self.registers[one.memory_base] + one.memory_displacement
        if one.memory_index != R.NONE:
            address += self.registers[one.memory_index] * one.memory_index_scale
        return address & (1 << 64) - 1, iced.MemorySizeExt.size(one.memory_size)

    def _read(self, one, place):
        kind = one.op_kind(place)
        if kind == KIND.REGISTER:
            register = one.op_register(place)
            size = iced.RegisterExt.size(register)
            return self.registers.get(_whole(register), 0) & (1 << 8 * size) - 1
        if kind == KIND.MEMORY:
            at, size = self._place(one)
            if at < RAM:
                return int.from_bytes(self.ram[at : at + size], "little")
            return int.from_bytes(self._memory[at - BASE : at - BASE + size], "little")
        return one.immediate(place) & (1 << 8 * self._size(one)) - 1

    def _size(self, one):
        if one.op_kind(0) == KIND.MEMORY:
            return iced.MemorySizeExt.size(one.memory_size)
        return iced.RegisterExt.size(one.op_register(0))

    def _write(self, one, place, value):
        if one.op_kind(place) == KIND.MEMORY:
            at, size = self._place(one)
            if at < RAM:
                self.ram[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
                return
            if at in APIC:
                self.apic.append((at, value))
                return
            at -= BASE
            self._memory[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            return
        register = one.op_register(place)
        mask = (1 << 8 * iced.RegisterExt.size(register)) - 1
        kept = self.registers.get(_whole(register), 0) & ~mask if mask <= 0xFFFF else 0
        self.registers[_whole(register)] = kept | value & mask


def _whole(register):
    return iced.RegisterExt.full_register(register)


@pytest.fixture
def cpu(memory):
    return Cpu(memory)


@pytest.fixture
def plan(cpu):
    """Return a function that says what the monitor is to do with a vector."""

    def plan(vector, policy, *, arm=0, code=False, rflags=0):
        one = cpu.shared.plans[vector]
        one.event = encode(Event(vector, EventType.EXCEPTION, 0 if code else None)) & 0xFFFF_FFFF
        one.arm, one.policy, one.flags, one.rflags = arm, policy, 0x55, rflags

    return plan


def raise_(vector, info_1=0, info_2=0, vectoring=None):
    def step(cpu):
        control = cpu.vmcb.control
        control.exit_code, control.exit_info_1, control.exit_info_2 = EXCEPTION_EXITS.start + vector, info_1, info_2
        control.exit_int_info = encode(vectoring) if vectoring else 0
        control.event_inj = 0

    return step


@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RECORD])
def test_an_exception_goes_back_as_it_was(cpu, plan, policy):
    plan(PF, policy, arm=0x7C01, code=True)
    cpu.mailbox.intercepts, cpu.vmcb.save.cr2 = 1 << PF, 0x55
    cpu.run(raise_(PF, 0x8000_0006, 0xFFFF_8000_CAFE_F00D))
    control, save = cpu.vmcb.control, cpu.vmcb.save
    assert decode(control.event_inj) == Event(PF, EventType.EXCEPTION, 0x8000_0006)
    assert save.cr2 == 0xFFFF_8000_CAFE_F00D
    assert control.intercept_exceptions == 1 << PF | 0x7C01
    assert cpu.mailbox.injected == 0x8000_0B0E
    assert (cpu.asked, cpu.mailbox.ring_head) == (1, int(policy is Policy.RECORD))  # the reset asks


def test_the_guest_has_svme_on_every_entry(cpu, plan):
    """SMM clears EFER, and VMRUN refuses that."""
    plan(UD, Policy.FORWARD)
    entered = []

    def in_smm(cpu):
        entered.append(cpu.vmcb.save.efer)
        cpu.vmcb.save.efer = 0
        raise_(UD)(cpu)

    cpu.vmcb.save.efer = EFER.LME
    cpu.run(in_smm, in_smm)
    assert entered == [EFER.SVME | EFER.LME, EFER.SVME]


@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RECORD])
def test_only_a_page_fault_writes_cr2(cpu, plan, policy):
    plan(UD, policy)
    cpu.vmcb.save.cr2 = 0x55
    cpu.run(raise_(UD, 0, 0xCAFE))
    assert cpu.vmcb.save.cr2 == 0x55
    assert decode(cpu.vmcb.control.event_inj) == Event(UD, EventType.EXCEPTION)


def test_what_was_armed_ends_at_the_next_exit(cpu, plan):
    plan(NP, Policy.FORWARD, arm=0x7C01, code=True)
    plan(UD, Policy.FORWARD)
    cpu.mailbox.intercepts = 1 << NP | 1 << UD
    cpu.run(raise_(NP), raise_(UD))
    assert cpu.vmcb.control.intercept_exceptions == 1 << NP | 1 << UD


@pytest.mark.parametrize("rflags", [0, RFLAGS.RF])
def test_rf_is_what_the_plan_says(cpu, plan, rflags):
    plan(UD, Policy.RECORD, rflags=rflags)
    cpu.vmcb.save.rflags, cpu.vmcb.control.interrupt_shadow = RFLAGS.TF | 2, 1
    cpu.run(raise_(UD))
    assert cpu.vmcb.save.rflags == RFLAGS.TF | 2 | rflags
    assert cpu.vmcb.control.interrupt_shadow == 0


@pytest.mark.parametrize(
    ("step", "policy"),
    [
        (raise_(UD), Policy.ASK),
        (raise_(UD, vectoring=Event(0x20, EventType.INTR)), Policy.FORWARD),
        (raise_(PF, 2, vectoring=Event(PF, EventType.EXCEPTION, 0)), Policy.RECORD),
        (raise_(GP, 0), Policy.FORWARD),  # perhaps an SVM instruction, for nobody says where RAM is
        (raise_(GP, 0), Policy.RECORD),
        (raise_(ExitCode.SWINT - EXCEPTION_EXITS.start), Policy.RECORD),  # nobody says what to intercept
        (raise_(ExitCode.MSR - EXCEPTION_EXITS.start), Policy.RECORD),
        (raise_(ExitCode.SHUTDOWN - EXCEPTION_EXITS.start), Policy.RECORD),
        (raise_(-EXCEPTION_EXITS.start), Policy.RECORD),
    ],
)
def test_what_python_has_to_see(cpu, plan, step, policy):
    for vector in range(32):
        plan(vector, policy)
    cpu.run(step)
    assert (cpu.asked, cpu.mailbox.ring_head, cpu.vmcb.control.event_inj) == (2, 0, 0)


def test_a_protection_fault_with_an_error_code_needs_nobody(cpu, plan):
    plan(GP, Policy.RECORD, code=True)
    cpu.run(raise_(GP, 0x18))
    assert (cpu.asked, decode(cpu.vmcb.control.event_inj)) == (1, Event(GP, EventType.EXCEPTION, 0x18))


def record(cpu, number):
    at = RING_AT + number * RECORD_SIZE
    return Record.from_buffer_copy(cpu.shared.memory[at : at + RECORD_SIZE])


def test_a_record_holds_what_was_known_at_the_exit(cpu, plan):
    plan(PF, Policy.RECORD, code=True)
    save = cpu.vmcb.save
    save.rip, save.rsp, save.rflags, save.cr3, save.cr0, save.cr4, save.efer = 1, 2, 3, 4, 5, 6, EFER.SVME
    save.dr6, save.cs.selector, save.cs.base, save.ss.selector, save.cpl = 8, 9, 10, 11, 3
    cpu.run(raise_(PF, 0x8000_0006, 0xCAFE))
    one = record(cpu, 0)
    assert (one.vector, one.cpl, one.flags, one.error_code, one.address) == (PF, 3, 0x55, 0x8000_0006, 0xCAFE)
    assert (one.rip, one.rsp, one.rflags, one.cr3, one.cr0, one.cr4, one.efer, one.dr6) == (
        1,
        2,
        3,
        4,
        5,
        6,
        EFER.SVME,
        8,
    )
    assert (one.cs, one.cs_base, one.ss, one.tsc, one.exit_int_info) == (9, 10, 11, cpu.tsc, 0)
    assert decode(one.event) == Event(PF, EventType.EXCEPTION, 0x8000_0006)


def test_the_ring_wraps_at_its_end(cpu, plan):
    plan(UD, Policy.RECORD)
    cpu.mailbox.ring_head = cpu.mailbox.ring_tail = 3 * RING_RECORDS - 2

    def at(rip):
        def step(cpu):
            cpu.vmcb.save.rip = rip
            raise_(UD)(cpu)

        return step

    cpu.run(at(0x10), at(0x20), at(0x30))
    assert [record(cpu, number).rip for number in (-2 % RING_RECORDS, -1 % RING_RECORDS, 0)] == [0x10, 0x20, 0x30]
    assert cpu.mailbox.ring_head == 3 * RING_RECORDS + 1


def test_a_full_ring_holds_the_guest_until_python_has_made_room(cpu, plan):
    plan(UD, Policy.RECORD)
    head = cpu.mailbox.ring_head = RING_RECORDS + 5
    cpu.mailbox.ring_tail = 5
    waited = []

    def make_room():
        if cpu.mailbox.owner == Owner.MONITOR:
            waited.append(cpu.mailbox.ring_head)
            cpu.mailbox.ring_tail += len(waited) == 3

    cpu.on_pause = make_room
    cpu.run(raise_(UD))
    assert waited == [head] * 3
    assert cpu.mailbox.ring_head == head + 1


@pytest.mark.parametrize(("attended", "rung"), [(0, [layout.DOORBELL_PORT]), (1, [])])
def test_python_is_woken_when_half_of_the_ring_is_full(cpu, plan, attended, rung):
    plan(UD, Policy.RECORD)
    cpu.mailbox.ring_head = RING_RECORDS // 2 - 1

    def sleep(cpu):
        cpu.mailbox.attended = attended
        raise_(UD)(cpu)

    cpu.run(sleep, raise_(UD), raise_(UD))
    assert [port for port, _ in cpu.outputs[1:]] == rung


def test_paging_is_there_again_when_tcg_has_lost_it(cpu, plan):
    plan(UD, Policy.FORWARD)

    def lose(cpu):
        cpu.registers[R.CR0] &= ~CR0.PG
        raise_(UD)(cpu)

    cpu.run(raise_(UD), lose)
    assert cpu.registers[R.CR0] & CR0.PG


def test_the_monitors_control_registers_follow_the_guests(cpu, plan):
    plan(UD, Policy.FORWARD)
    cpu.vmcb.save.cr0, cpu.vmcb.save.cr4 = CR0.PE | CR0.WP, CR4.PGE | CR4.OSXSAVE
    cpu.run(raise_(UD))
    assert cpu.registers[R.CR0] & (CR0.PG | CR0.WP) == CR0.PG | CR0.WP
    assert cpu.registers[R.CR4] == CR4.PAE | CR4.PGE


@pytest.mark.parametrize("bridge", pci.SHADOW_REGISTERS)
@pytest.mark.parametrize("power_on", [True, False])
def test_the_shadow_is_opened_when_python_says_so(cpu, bridge, power_on):
    cpu.bridge, cpu.mailbox.open_shadow = bridge, power_on
    cpu.run()
    opened = [value for port, value in cpu.outputs if port >= pci.CONFIG_DATA]
    assert opened == list(pci.SHADOW_OPEN) * power_on
    assert cpu.outputs[-1] == (pci.CONFIG_ADDRESS, 0)
    assert cpu.asked == 1
