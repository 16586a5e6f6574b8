"""Stores to the local APIC, as the monitor executes them: each as the host would, or left to it."""

import iced_x86 as iced
import pytest

from tests.processors.qemu.monitor.test_guest_code_runs import WAYS, at_rip  # noqa: F401  # a fixture
from tests.processors.qemu.monitor.test_monitor_runs import Cpu
from trapline.arch.descriptors import Attribute
from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.devices import lapic
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.apic_stores import store_at_rip

EOI, ICR, LVT = lapic.BASE + 0xB0, lapic.BASE + 0x300, lapic.BASE + 0x320
FIXED, NMI, INIT, STARTUP = 0x4033, 0x4400, 0x4500, 0x4608
COMMON = ["89 3e", "89 07", "c7 07 78 56 34 12", "89 77 10", "89 b7 00 d0 5f ff", "89 44 24 08", "89 94 8e 44 33 22 11"]
"""MOV in both sizes of code."""
OF_64 = [
    *("44 89 07", "41 89 78 20", "44 89 04 25 b0 00 e0 fe", "c7 04 25 b0 00 e0 fe 01 00 00 00", "40 89 3e"),
    *("89 35 11 22 33 44", "45 89 bc cd 00 10 00 00", "41 c7 44 24 08 02 00 00 00", "89 65 00", "89 24 25 80 00 e0 fe"),
]
OF_32 = ["89 35 b0 00 e0 fe", "c7 05 80 03 e0 fe 0b 00 00 00", "89 04 cd 00 00 00 00", "89 0c 85 b0 00 e0 fe"]
OTHERS = ["87 07", "a3 b0 00 e0 fe", "09 07", "66 89 07", "88 07", "c6 07 01", "3e 89 07", "90"]
REGISTERS = ("rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


@pytest.fixture
def cpu(memory):
    cpu = Cpu(memory)
    cpu.mailbox.ram_low = len(cpu.ram)
    for number, name in enumerate(REGISTERS):
        cpu.set(name, 0x1111_0000_2222_0000 * number + number)
    cpu.vmcb.save.rax, cpu.vmcb.save.rsp = 0xAAAA_BBBB_CCCC_0001, 0xAAAA_BBBB_CCCC_0002
    return cpu


@pytest.fixture
def store(cpu, at_rip):  # noqa: F811
    """Return a function that lets the guest leave at an instruction; it returns how the host understands that."""

    def store(code, address=LVT, **control):
        at_rip(bytes.fromhex(code))
        for name in REGISTERS:
            setattr(cpu.mailbox.gprs, name, cpu.get(name))
        memory = ScriptedMemory(len(cpu.ram))
        memory.write(0, bytes(cpu.ram))
        found = store_at_rip(cpu.vmcb.save, cpu.mailbox.gprs, memory)

        def leaves(cpu):
            cpu.vmcb.control.exit_code, cpu.vmcb.control.exit_int_info = ExitCode.NPF, 0
            cpu.vmcb.control.exit_info_1, cpu.vmcb.control.exit_info_2 = 0x1_0000_0007, address
            cpu.vmcb.control.interrupt_shadow = 1
            for name, value in control.items():
                setattr(cpu.vmcb.control, name, value)

        cpu.run(leaves)
        return found

    return store


def size_of_code(way):
    return {Attribute.L: 64, Attribute.DB: 32, 0: 16}[WAYS[way][4]]


PAIRS = [
    *(("64-bit, 4 KiB", code) for code in COMMON + OF_64),
    *(("protected mode", code) for code in COMMON + OF_32),
    *((way, COMMON[0]) for way in WAYS if size_of_code(way) > 16),
]


@pytest.mark.parametrize(("at_rip", "code"), PAIRS, indirect=["at_rip"])
def test_a_store_is_executed(cpu, store, code):
    save = cpu.vmcb.save
    rip, registers, save.rflags = save.rip, dict(cpu.registers), RFLAGS.ALWAYS_ONE | RFLAGS.RF
    cpu.mailbox.injected = 0x8000_0B0E
    found = store(code)
    assert cpu.apic == [(LVT, found.value)]
    assert (save.rip - rip, found.length) == (len(bytes.fromhex(code)),) * 2
    assert (save.rflags, cpu.vmcb.control.interrupt_shadow, cpu.asked) == (RFLAGS.ALWAYS_ONE, 0, 1)
    assert cpu.mailbox.injected == 0
    assert {name: cpu.get(name) for name in REGISTERS} == {
        name: registers[getattr(iced.Register, name.upper())] for name in REGISTERS
    }


@pytest.mark.parametrize(("at_rip", "code"), [("64-bit, 4 KiB", code) for code in OTHERS], indirect=["at_rip"])
def test_other_instructions_are_the_hosts(cpu, store, code):
    rip = cpu.vmcb.save.rip
    store(code)
    assert (cpu.apic, cpu.asked, cpu.vmcb.save.rip) == ([], 2, rip)


@pytest.mark.parametrize("at_rip", ["real mode", "virtual-8086"], indirect=True)
def test_16_bit_code_is_the_hosts(cpu, store):
    store("89 3e")
    assert (cpu.apic, cpu.asked) == ([], 2)


@pytest.mark.parametrize("at_rip", ["64-bit, 4 KiB"], indirect=True)
@pytest.mark.parametrize(
    ("address", "value", "executed"),
    [
        *((ICR, FIXED, True), (ICR, NMI, False), (ICR, INIT, False), (ICR, STARTUP, False), (ICR, 0x8500, False)),
        *((LVT, INIT, True), (EOI, STARTUP, True), (ICR + 4, INIT, False), (ICR + 0x1_0000, 0, False)),
    ],
)
def test_commands_to_other_cpus_are_the_hosts(cpu, store, address, value, executed):
    cpu.set("rsi", value)
    store("89 37", address)
    assert (cpu.apic, cpu.asked) == (([(address, value)], 1) if executed else ([], 2))


@pytest.mark.parametrize("at_rip", ["64-bit, 4 KiB"], indirect=True)
@pytest.mark.parametrize("why", ["step", "delivery"])
def test_what_takes_more_is_the_hosts(cpu, store, why):
    cpu.vmcb.save.rflags = RFLAGS.ALWAYS_ONE | (RFLAGS.TF if why == "step" else 0)
    store("89 37", exit_int_info=encode(Event(0x41, EventType.INTR)) if why == "delivery" else 0)
    assert (cpu.apic, cpu.asked) == ([], 2)
