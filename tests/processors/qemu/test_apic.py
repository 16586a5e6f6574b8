"""What stores to the local APIC are understood as, and which of them reset or start other CPUs."""

import pytest

from trapline.arch.descriptors import Attribute
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.devices import lapic
from trapline.errors import ProcessorError
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu import apic
from trapline.processors.qemu.apic import Command
from trapline.processors.qemu.layout import SharedMemory, size_for

CODE = 0x1000
ESI = 0x1234_5678
EOI, ICR, ICR_HIGH, SPURIOUS = (lapic.BASE + offset for offset in (0xB0, 0x300, 0x310, 0xF0))
OTHERS, EVERYBODY, SELF = 3 << 18, 2 << 18, 1 << 18
INIT, STARTUP, NMI = 0x4500, 0x4608, 0x4400


class Cpu:
    """A CPU in 32-bit code, whose local APIC is a dictionary."""

    def __init__(self, memory, number):
        shared = SharedMemory(memory, number)
        self.vmcb, self.gprs, self.number, self.apic_id = shared.vmcb, shared.gprs, number, number
        self.memory = ScriptedMemory(1 << 16)
        self.vmcb.save.cs.attributes, self.vmcb.save.rip, self.vmcb.save.rflags = (
            Attribute.DB,
            CODE,
            RFLAGS.CF | RFLAGS.OF,
        )
        self.gprs.rsi = 0xFFFF_FFFF_0000_0000 | ESI
        self.registers = {ICR_HIGH: 1 << 24}
        self.stored, self.nmis = [], 0

    def load(self, address):
        return self.registers.get(address, 0)

    def store(self, address, value):
        self.registers[address] = value
        self.stored.append((address, value))

    def note_nmi(self):
        self.nmis += 1


@pytest.fixture
def cpus():
    memory = memoryview(bytearray(size_for(3)))
    return [Cpu(memory, number) for number in range(3)]


def execute(cpus, code, address, sender=0):
    cpu = cpus[sender]
    cpu.memory.write(CODE, bytes.fromhex(code))
    cpu.vmcb.control.exit_code, cpu.vmcb.control.exit_info_2 = ExitCode.NPF, address
    return apic.execute(cpu, cpus)


@pytest.mark.parametrize(
    ("code", "before", "stored", "flags", "esi"),
    [
        ("8937", 5, ESI, RFLAGS.CF | RFLAGS.OF, ESI),
        ("a3b000e0fe", 5, 0, RFLAGS.CF | RFLAGS.OF, ESI),
        ("c70701000000", 5, 1, RFLAGS.CF | RFLAGS.OF, ESI),
        ("8737", 5, ESI, RFLAGS.CF | RFLAGS.OF, 5),
        ("810f00010000", 0xFF, 0x1FF, RFLAGS.PF, ESI),
        ("830f80", 1, 0xFFFF_FF81, RFLAGS.SF | RFLAGS.PF, ESI),
        ("2137", 0x8, 0x8, 0, ESI),
        ("3137", ESI, 0, RFLAGS.ZF | RFLAGS.PF, ESI),
    ],
)
def test_a_store_is_executed(cpus, code, before, stored, flags, esi):
    cpu = cpus[0]
    cpu.registers[SPURIOUS] = before
    assert execute(cpus, code, SPURIOUS) is False
    assert cpu.stored == [(SPURIOUS, stored)]
    assert (cpu.vmcb.save.rip, cpu.vmcb.save.rflags & RFLAGS.STATUS) == (CODE + len(bytes.fromhex(code)), flags)
    assert cpu.gprs.rsi & 0xFFFF_FFFF == esi


def test_a_step_ends_after_it(cpus):
    cpus[0].vmcb.save.rflags |= RFLAGS.TF
    assert execute(cpus, "8937", EOI) is True
    assert cpus[0].vmcb.control.exit_code == exception_exit(Vector.DB)


@pytest.mark.parametrize("value", [INIT | OTHERS, STARTUP | OTHERS])
def test_a_step_ends_after_a_command_too(cpus, value):
    cpus[0].vmcb.save.rflags |= RFLAGS.TF
    cpus[0].gprs.rsi = value
    assert execute(cpus, "8937", ICR).stepped
    assert cpus[0].vmcb.control.exit_code == exception_exit(Vector.DB)


@pytest.mark.parametrize(
    ("value", "sender", "high", "targets"),
    [
        *((mode | OTHERS, 0, 0, [1, 2]) for mode in (INIT, STARTUP)),
        *((mode, 0, 2 << 24, [2]) for mode in (INIT, STARTUP)),
        *((mode | SELF, 1, 0, [1]) for mode in (INIT, STARTUP)),
        (STARTUP, 0, 7 << 24, []),
        (STARTUP | EVERYBODY, 1, 0, [0, 1, 2]),
        (STARTUP, 0, 0xFF << 24, [0, 1, 2]),
    ],
)
def test_commands_that_reset_or_start_cpus(cpus, value, sender, high, targets):
    cpus[sender].registers[ICR_HIGH], cpus[sender].gprs.rsi = high, value
    init = value & 0x700 == INIT & 0x700
    assert execute(cpus, "8937", ICR, sender) == Command(value, targets, init)
    # In QEMU a level that is taken back does nothing, and a startup IPI only wakes.
    assert cpus[sender].stored == [(ICR, value & ~0x4000 | 0x8000 if init else value)]


@pytest.mark.parametrize(
    ("value", "nmis"),
    [
        *((NMI | OTHERS, [1, 0, 1]), (NMI | SELF, [0, 1, 0]), (NMI, [0, 1, 0]), (NMI | 0x800, [0, 0, 0])),
        *((other, [0, 0, 0]) for other in (INIT | EVERYBODY, INIT & ~0x4000 | 0x8000, 0xFB)),
    ],
)
def test_other_commands_are_qemus(cpus, value, nmis):
    """An INIT of the boot CPU among them, which resets the machine."""
    cpus[1].gprs.rsi = value
    assert execute(cpus, "8937", ICR, 1) is False
    assert cpus[1].stored == [(ICR, value)]
    assert [cpu.nmis for cpu in cpus] == nmis


@pytest.mark.parametrize(
    ("code", "address"), [("0fab37", SPURIOUS), ("668937", SPURIOUS), ("f3ab", SPURIOUS), ("8937", lapic.BASE + 0x1000)]
)
def test_what_is_not_understood_is_told(cpus, code, address):
    with pytest.raises(ProcessorError, match=r"CPU 0 writes to 0xfee0.*use one CPU"):
        execute(cpus, code, address)


def test_an_nmi_is_sent_as_a_device_does(cpus):
    apic.send_nmi(cpus[0], cpus[2])
    assert cpus[0].stored == [(0xFEE0_2000, 0x400)]


def test_after_an_init_nothing_is_in_service(cpus):
    cpus[1].registers[lapic.BASE + 0x110] = 0b101
    apic.reset(cpus[1])
    assert cpus[1].stored.count((EOI, 0)) == 2
    assert (SPURIOUS, 0xFF) in cpus[1].stored
