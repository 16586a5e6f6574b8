"""The monitor's answers to the guarded ports, executed."""

import pytest

from tests.processors.qemu.monitor.test_monitor_runs import RAM, Cpu
from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.devices.keyboard import COMMAND
from trapline.processors.qemu import pci
from trapline.processors.qemu.fw_cfg_dma import HIGH, LOW, PART
from trapline.processors.qemu.layout import DMA_AT, SIZE, Command

AT = 0x3000
SWAPPED = int.from_bytes(AT.to_bytes(4, "big"), "little")
BYTE, IN = 1 << 4, 1
BEFORE = 0x8000_0B0E  # what an entry before has injected
DONE = 0x0100_0000  # an error, as it is in memory


@pytest.fixture
def cpu(memory):
    cpu = Cpu(memory)
    cpu.outputs_before = 0
    cpu.mailbox.ram_low, cpu.mailbox.injected = RAM, BEFORE
    return cpu


def out(port, value, rflags=RFLAGS.RF | RFLAGS.ALWAYS_ONE, form=1 << 6):
    def step(cpu):
        control, save = cpu.vmcb.control, cpu.vmcb.save
        control.exit_code, control.exit_info_1 = ExitCode.IOIO, port << 16 | form
        control.exit_info_2, control.interrupt_shadow = save.rip + 1, 1
        save.rax, save.rflags = value, rflags
        cpu.outputs.clear()

    return step


def assert_complete(cpu):
    control, save = cpu.vmcb.control, cpu.vmcb.save
    assert cpu.asked == 1
    assert (save.rip, save.rflags, control.interrupt_shadow) == (1, RFLAGS.ALWAYS_ONE, 0)
    assert cpu.mailbox.injected == 0


@pytest.mark.parametrize(
    ("address", "goes_out"), [(0x8000_1234, 0x8000_1234), (0x8000_F7FC, 0x0000_F7FC), (0x8000_F6FC, 0x8000_F6FC)]
)
def test_the_guest_does_not_find_our_device(cpu, address, goes_out):
    cpu.run(out(pci.CONFIG_ADDRESS, address))
    assert cpu.outputs == [(pci.CONFIG_ADDRESS, goes_out)]
    assert cpu.mailbox.config_address == address
    assert_complete(cpu)


@pytest.mark.parametrize(
    ("kept", "found", "read"),
    [
        (0x8000_8086, 0x8000_8086, 0x8000_8086),
        (0x8000_8086, 0x0000_8086, 0x8000_8086),  # as it goes out where it names our device
        (0x8001_8086, 0x0000_8086, 0x0000_8086),  # changed since
    ],
)
def test_the_configuration_address_is_read_as_the_guest_wrote_it(cpu, kept, found, read):
    step = out(pci.CONFIG_ADDRESS, 0x1122_3344_5566_7788, form=1 << 6 | IN)

    def with_address(cpu):
        step(cpu)
        cpu.mailbox.config_address, cpu.bridge = kept, found >> 16  # what each IN of this CPU reads

    cpu.run(with_address)
    assert cpu.vmcb.save.rax == read
    assert_complete(cpu)


@pytest.mark.parametrize(
    ("port", "rflags", "form"),
    [
        *((port, *how) for port in (pci.CONFIG_ADDRESS, HIGH, LOW) for how in ((RFLAGS.TF, 1 << 6), (0, 1 << 5))),
        *((port, 0, 1 << 6 | 1 | 1 << 2) for port in (pci.CONFIG_ADDRESS, HIGH, LOW)),
        *((port, 0, 1 << 6 | 1) for port in (HIGH, LOW)),
    ],
)
def test_python_answers_all_that_is_not_plain(cpu, port, rflags, form):
    cpu.run(out(port, 0x8000_1234, rflags, form))
    assert (cpu.asked, cpu.outputs, cpu.vmcb.save.rip) == (2, [], 0)


def test_the_keyboard_controllers_status_is_read_for_the_guest(cpu):
    cpu.run(out(COMMAND, 0x1122_3344_5566_7788, form=BYTE | IN))
    assert cpu.vmcb.save.rax == 0x1122_3344_5566_7786  # each IN of this CPU reads 0x86
    assert_complete(cpu)


@pytest.mark.parametrize("command", [0xAE, 0xFF, 0x20])
def test_its_commands_go_out(cpu, command):
    cpu.run(out(COMMAND, 0x1122_3344_5566_7700 | command, form=BYTE))
    assert cpu.outputs == [(COMMAND, command)]
    assert_complete(cpu)


@pytest.mark.parametrize("command", [0xFE, 0xF0])
def test_python_is_asked_before_a_command_that_resets(cpu, command):
    cpu.run(out(COMMAND, command, form=BYTE))
    assert (cpu.asked, cpu.outputs, cpu.vmcb.save.rip) == (2, [], 0)


def descriptor(cpu, length, address, at=AT, control=0x0102_0304):
    cpu.ram[at : at + 16] = control.to_bytes(4, "big") + length.to_bytes(4, "big") + address.to_bytes(8, "big")


def transfer(cpu):
    """Do what QEMU does at the second OUT: end the copy of the descriptor."""
    if len(cpu.outputs) == 2:
        cpu.copy = bytes(cpu._memory[DMA_AT : DMA_AT + 16])
        cpu._memory[DMA_AT : DMA_AT + 4] = DONE.to_bytes(4, "big")


@pytest.mark.parametrize(("length", "address"), [(4, 0x4000), (PART, 0x4000), (0, (1 << 39) - 1), (16, (1 << 39) - 16)])
def test_a_dma_is_done_by_a_copy_of_its_descriptor(cpu, length, address):
    descriptor(cpu, length, address)
    before = bytes(cpu.ram[AT : AT + 16])
    cpu.on_output = lambda: transfer(cpu)
    cpu.run(out(LOW, SWAPPED))
    place = (1 << 39) + DMA_AT
    halves = [int.from_bytes((place >> shift & 0xFFFF_FFFF).to_bytes(4, "big"), "little") for shift in (32, 0)]
    assert cpu.outputs == [(HIGH, halves[0]), (LOW, halves[1])]
    assert cpu.copy == before
    assert cpu.ram[AT : AT + 16] == DONE.to_bytes(4, "big") + before[4:]
    assert_complete(cpu)


@pytest.mark.parametrize(
    ("length", "address"),
    [
        (1, 1 << 39),
        (17, (1 << 39) - 16),
        (1, (1 << 39) + SIZE),
        (PART, (1 << 64) - 2),
        (PART, (1 << 39) - 1),
        (PART + 1, 0x4000),
    ],
)
def test_python_does_one_that_may_reach_the_monitor_or_takes_long(cpu, length, address):
    descriptor(cpu, length, address)
    cpu.run(out(LOW, SWAPPED))
    assert (cpu.asked, cpu.outputs) == (2, [])


@pytest.mark.parametrize("at", [RAM - 15, RAM, 0xA_0000 - 15, 0xF_FFFF, 0x10_0000, 0x2F_FFF8, 0xFFFF_FFFF])
def test_python_reads_a_descriptor_that_the_monitor_cannot(cpu, at):
    cpu.mailbox.ram_low = RAM if at <= RAM else 0x1000_0000
    cpu.run(out(LOW, int.from_bytes(at.to_bytes(4, "big"), "little")))
    assert (cpu.asked, cpu.outputs) == (2, [])


def test_a_high_half_is_kept_for_python(cpu):
    descriptor(cpu, 4, 0x4000)
    cpu.run(out(HIGH, 0x100))
    assert (cpu.mailbox.dma_high, cpu.outputs) == (0x100, [])
    assert_complete(cpu)


def test_python_starts_a_dma_above_4_gib(cpu):
    descriptor(cpu, 4, 0x4000)
    cpu.run(out(HIGH, 0x100), out(LOW, SWAPPED))
    assert (cpu.mailbox.dma_high, cpu.asked, cpu.outputs) == (0x100, 2, [])


@pytest.mark.parametrize(("width", "value"), [(1, 0x78), (2, 0x5678), (4, 0x1234_5678)])
def test_the_monitor_accesses_ports_for_python(cpu, width, value):
    mailbox = cpu.mailbox
    mailbox.port, mailbox.width, mailbox.value = 0x1234, width, 0x1234_5678
    commands = iter([Command.OUT, Command.IN])

    def answer():
        mailbox.owner, mailbox.command = 0, next(commands, Command.RESUME)

    cpu.on_pause = answer
    cpu.run()
    assert cpu.outputs[-1] == (0x1234, value)
    assert mailbox.value == 0x1234_5678 & ~((1 << 8 * width) - 1) | 0x1237_8086 & (1 << 8 * width) - 1
