"""Local APICs of several CPUs: who gets which interrupt, and how CPUs are started (APM vol. 2, 16.5)."""

import pytest

ID, LDR, DFR, SVR, ICR, ICR2, TPR = 0x20, 0xD0, 0xE0, 0xF0, 0x300, 0x310, 0x80
LVTT, LINT0, TMICT, EOI = 0x320, 0x350, 0x380, 0xB0
BASE = 0xFEE00000
INIT, STARTUP, NMI, LOWEST, LOGICAL = 0x4500, 0x4608, 0x400, 0x100, 0x800
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18


class Cpus:
    def __init__(self, pc):
        self.pc, self.cpus = pc, pc.machine.cpus
        for number in range(len(self.cpus)):
            self.write(number, SVR, 0x1FF)

    def write(self, cpu, register, value):
        self.pc.machine.mmio_write(BASE + register, 4, value, cpu)

    def read(self, cpu, register):
        return self.pc.machine.mmio_read(BASE + register, 4, cpu)

    def send(self, cpu, command, destination=0):
        self.write(cpu, ICR2, destination << 24)
        self.write(cpu, ICR, command)

    def pending(self):
        return [cpu.pending() for cpu in self.cpus]


@pytest.fixture
def smp(build):
    return Cpus(build(cpus=3))


def test_each_cpu_has_an_id_and_one_is_the_boot_cpu(build):
    pc = build(cpus=3)
    cpus = Cpus(pc)
    assert [cpus.read(number, ID) >> 24 for number in range(3)] == [0, 1, 2]
    assert [cpu.apic_base for cpu in cpus.cpus] == [0xFEE00900, 0xFEE00800, 0xFEE00800]


def test_firmware_leaves_other_cpus_as_an_init_does(build):
    machine = build(cpus=2).machine
    assert machine.mmio_read(BASE + SVR, 4, 1) == 0xFF
    assert machine.mmio_read(BASE + LINT0, 4, 1) == 1 << 16


@pytest.mark.parametrize(
    ("command", "destination", "taken"),
    [
        (0x41, 1, [None, 0x41, None]),
        (0x41, 7, [None, None, None]),
        (0x41, 0xFF, [0x41, 0x41, 0x41]),
        (0x41 | SELF, 0, [0x41, None, None]),
        (0x41 | ALL, 0, [0x41, 0x41, 0x41]),
        (0x41 | OTHERS, 0, [None, 0x41, 0x41]),
        (0x41 | LOGICAL, 0b110, [None, 0x41, 0x41]),
        (0x41 | LOWEST | LOGICAL, 0b111, [None, None, 0x41]),
    ],
)
def test_an_interrupt_reaches_those_that_it_is_for(smp, command, destination, taken):
    for number in range(3):
        smp.write(number, LDR, 1 << 24 + number)
        smp.write(number, TPR, 0x30 - 0x10 * number)
    smp.send(0, command, destination)
    assert smp.pending() == taken


def test_the_io_apic_reaches_each_cpu_and_hears_its_end(smp):
    smp.pc.redirect(5, 2 << 56 | 1 << 15 | 0x51)
    smp.pc.machine.port_write(0x2000 + 5, 1, 1)
    assert smp.pending() == [None, None, 0x51]
    assert smp.cpus[2].acknowledge() == 0x51
    smp.pc.machine.port_write(0x2000 + 5, 1, 0)
    smp.write(2, EOI, 0)
    assert smp.pending() == [None, None, None]


def test_the_8259s_interrupt_the_boot_cpu(smp):
    smp.write(1, LINT0, 0x700)
    smp.pc.init_pics(masks=(0xFE, 0xFF))
    smp.pc.program_pit(0, 2, 1000)
    smp.pc.wait(10_000_000)
    assert smp.pending() == [0x20, None, None]


def test_each_cpu_has_its_timer(smp):
    smp.write(1, LVTT, 0x61)
    smp.write(1, TMICT, 1000)
    assert smp.pc.machine.next_event() == smp.pc.now + 2000
    smp.pc.wait(2000)
    assert smp.pending() == [None, 0x61, None]


def test_an_nmi_reaches_one_cpu_and_the_button_all(smp):
    smp.send(0, NMI, 1)
    assert [cpu.nmi_pending() for cpu in smp.cpus] == [False, True, False]
    smp.write(2, 0x360, 0x400)
    smp.pc.machine.press_nmi()
    assert [cpu.nmi_pending() for cpu in smp.cpus] == [True, True, True]


def test_a_cpu_starts_by_an_init_and_a_startup_ipi(smp):
    smp.send(0, INIT, 1)
    assert (smp.cpus[1].take_startup(), smp.cpus[1].take_init(), smp.cpus[1].take_init()) == (None, True, False)
    smp.send(0, STARTUP, 1)
    smp.send(0, STARTUP + 1, 1)  # the second one, which kernels send to be sure
    assert (smp.cpus[1].take_startup(), smp.cpus[1].take_startup()) == (8, None)
    smp.send(0, STARTUP, 1)
    assert smp.cpus[1].take_startup() is None
    assert not smp.cpus[2].take_init()
    assert smp.pc.machine.hints == []
    assert smp.pc.machine.request is None


def test_an_init_resets_the_local_apic_but_its_id(smp):
    smp.write(1, ID, 5 << 24)
    smp.send(0, 0x41, 5)
    smp.send(0, INIT | OTHERS)
    assert smp.pending() == [None, None, None]
    assert smp.read(1, SVR) == 0xFF
    assert [cpu.take_init() for cpu in smp.cpus] == [False, True, True]


def test_a_startup_ipi_without_an_init_is_told(smp):
    smp.send(0, STARTUP, 2)
    assert smp.cpus[2].take_startup() is None
    (told,) = smp.pc.machine.hints
    assert told.startswith("the guest sent a startup IPI to CPU 2 without an INIT before: firmware has parked")


def test_a_cpu_that_is_not_there_is_told(smp):
    smp.send(0, INIT, 3)
    assert smp.pc.machine.hints == ["the guest sent an INIT or startup IPI to another CPU: its machine has 3"]


def test_an_init_of_the_boot_cpu_resets_the_machine(smp):
    smp.send(1, INIT, 0)
    assert smp.pc.machine.request.action.value == "reset"
    smp.pc.machine.reset()
    assert smp.read(1, SVR) == 0xFF
