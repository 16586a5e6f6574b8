import pytest

from trapline.arch.exits import ExitCode, exception_exit, is_intercepted
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.devices import keyboard
from trapline.devices.power import RESET_CONTROL
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu import fw_cfg_dma, guard, pci
from trapline.processors.qemu.layout import DOORBELL_PORT, Command
from trapline.processors.qemu.ports import Ports

IN, STRING, REPEATED, BYTE, WORD, DWORD = 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
COMMAND = ["qemu", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "isa-debug-exit"]
EXITS = {0xF4, 0xF5, 0xF6, 0xF7, 0x501, 0x502}
GUARDED = {pci.CONFIG_ADDRESS, DOORBELL_PORT, fw_cfg_dma.HIGH, fw_cfg_dma.LOW, *guard.EJECT_PORTS}
RAX = 0x1122_3344_5566_7788
CODE, DATA = 0x100, 0x2000
REP_OUTSD, REP_INSD = b"\xf3\x67\x66\x6f", b"\xf3\x67\x66\x6d"


class Handshake:
    """Notes the commands that the monitor gets, with the port, the width and the value of each."""

    def __init__(self, mailbox):
        self.mailbox = mailbox
        self.given = []

    def give(self, command):
        self.given.append((command, self.mailbox.port, self.mailbox.width, self.mailbox.value))


@pytest.fixture
def handshake(shared):
    return Handshake(shared.mailbox)


@pytest.fixture
def ram():
    return ScriptedMemory(0x1_0000)


@pytest.fixture
def ports(shared, handshake, ram):
    ports = Ports(shared, handshake, ram, COMMAND, [], splits=False)
    ports.watch()
    return ports


@pytest.fixture
def access(ports, shared):
    """Return a function that plays an IN or OUT at a port."""

    def access(port, form, flags=RFLAGS.ALWAYS_ONE, ports=ports, rax=RAX):
        control, save = shared.vmcb.control, shared.vmcb.save
        control.exit_code, control.exit_info_1, control.exit_info_2 = ExitCode.IOIO, port << 16 | form, CODE + 4
        save.rip, save.rax, save.rflags, control.interrupt_shadow = CODE, rax, flags, 1
        return ports.answer()

    return access


def watched(shared):
    return {port for port in range(0x10000) if shared.iopm[port // 8] >> port % 8 & 1}


def test_the_ports_are_intercepted(ports, shared):
    assert is_intercepted(shared.vmcb.control, ExitCode.IOIO)
    assert watched(shared) == GUARDED | EXITS | {RESET_CONTROL, keyboard.COMMAND}


@pytest.mark.parametrize(
    ("port", "form", "value", "at"),
    [
        (0xF4, BYTE, 0x88, 0xF4),
        (0xF4, WORD, 0x88, 0xF4),
        (0xF4, DWORD, 0x88, 0xF4),
        (0xF6, WORD, 0x88, 0xF6),
        (0x502, BYTE, 0x88, 0x502),
    ],
)
def test_an_out_is_the_end(access, ports, handshake, shared, port, form, value, at):
    assert not ports.ended
    assert not access(port, form)
    assert ports.leaving  # the state is read first
    assert handshake.given == []
    assert ports.leave()
    assert handshake.given == [(Command.EXIT, at, 1, value)]
    assert ports.ended
    assert shared.vmcb.save.rip == CODE


@pytest.mark.parametrize(
    ("port", "form", "value", "at"),
    [
        (0xF3, WORD, 0x77, 0xF4),
        (0xF1, DWORD, 0x55, 0xF4),
        (0xF7, DWORD, 0x88, 0xF7),
        (0x500, DWORD, 0x77, 0x501),
    ],
)
def test_one_that_is_not_aligned_reaches_the_device_where_accesses_are_split(
    access, shared, handshake, ram, port, form, value, at
):
    split = Ports(shared, handshake, ram, COMMAND, [], splits=True)
    assert not access(port, form, ports=split)
    assert split.leave()
    assert handshake.given == [(Command.EXIT, at, 1, value)]
    handshake.given.clear()
    access(port, form)
    assert [given[:2] for given in handshake.given] == [(Command.OUT, port)]


@pytest.mark.parametrize(
    ("form", "size", "rax"),
    [(BYTE, 1, 0x1122_3344_5566_77AA), (WORD, 2, 0x1122_3344_5566_AAAA), (DWORD, 4, 0xAAAA_AAAA)],
)
@pytest.mark.parametrize("trap", [0, RFLAGS.TF])
def test_an_in_is_executed_and_the_guest_goes_on(access, ports, handshake, shared, form, size, rax, trap):
    assert not access(0xF4, form | IN, RFLAGS.ALWAYS_ONE | trap)
    save, control = shared.vmcb.save, shared.vmcb.control
    assert (save.rip, save.rax) == (CODE, RAX)
    assert handshake.given == [(Command.IN, 0xF4, size, 0)]
    shared.mailbox.value = 0xAAAA_AAAA
    assert ports.answer() is bool(trap)
    assert (save.rip, save.rax, control.interrupt_shadow) == (CODE + 4, rax, 0)
    assert control.exit_code == (exception_exit(Vector.DB) if trap else ExitCode.IOIO)
    assert bool(save.dr6 & DR6.BS) is bool(trap)
    assert not ports.ended


@pytest.mark.parametrize(
    ("port", "value", "resets"),
    [
        (RESET_CONTROL, 6, True),
        (RESET_CONTROL, 2, False),
        (keyboard.COMMAND, 0xFE, True),
        (keyboard.COMMAND, 0xFF, False),
    ],
)
def test_an_out_that_resets_is_told_before(access, ports, handshake, shared, port, value, resets):
    assert not access(port, BYTE, rax=value)
    assert ports.leaving is resets
    assert ports.leave() is resets
    assert handshake.given == [(Command.OUT, port, 1, value)]
    assert not ports.ended
    assert not ports.answer()  # the reset takes some time to come, and the guest goes on
    assert shared.vmcb.save.rip == CODE + 4
    assert not ports.leave()


def test_the_configuration_address_goes_out_before_the_guest_goes_on(access, ports, handshake, shared):
    assert not access(pci.CONFIG_ADDRESS, DWORD)
    assert handshake.given == [(Command.OUT, pci.CONFIG_ADDRESS, 4, RAX & 0xFFFF_FFFF)]
    assert shared.vmcb.save.rip == CODE
    assert not ports.answer()
    assert shared.vmcb.save.rip == CODE + 4


def test_what_the_monitor_need_not_execute_is_complete_at_once(access, handshake, shared):
    assert not access(DOORBELL_PORT, DWORD | IN)
    assert (handshake.given, shared.vmcb.save.rax, shared.vmcb.save.rip) == ([], 0xFFFF_FFFF, CODE + 4)


def test_a_reset_ends_the_access_and_clears_the_configuration_address(access, ports, handshake, shared):
    access(pci.CONFIG_ADDRESS, DWORD)
    ports.reset()
    assert shared.mailbox.config_address == 0
    access(DOORBELL_PORT, DWORD)
    assert shared.vmcb.save.rip == CODE + 4
    assert len(handshake.given) == 1


def test_a_string_is_written_element_by_element(access, ports, handshake, shared, ram):
    ram.write(CODE, REP_OUTSD)
    ram.write(DATA, bytes(range(1, 9)))
    gprs, save = shared.gprs, shared.vmcb.save
    gprs.rsi, gprs.rcx = DATA, 2
    for number, rip in ((0, CODE), (1, CODE + 4)):
        assert not access(pci.CONFIG_ADDRESS + 2, DWORD | STRING | REPEATED)
        assert handshake.given.pop() == (Command.OUT, pci.CONFIG_ADDRESS + 2, 4, 0x0403_0201 + 0x0404_0404 * number)
        assert not ports.answer()
        assert (gprs.rsi, gprs.rcx, save.rip) == (DATA + 4 + 4 * number, 1 - number, rip)
    assert not access(pci.CONFIG_ADDRESS, DWORD | STRING | REPEATED)
    assert (handshake.given, gprs.rsi, save.rip) == ([], DATA + 8, CODE + 4)


def test_a_string_may_end_the_machine(access, ports, handshake, shared, ram):
    ram.write(CODE, REP_OUTSD)
    ram.write(DATA, b"\x12")
    shared.gprs.rsi, shared.gprs.rcx = DATA, 2
    assert not access(0xF4, DWORD | STRING | REPEATED)
    assert ports.leave()
    assert handshake.given == [(Command.EXIT, 0xF4, 1, 0x12)]
    assert ports.ended


def test_a_string_is_read(access, ports, shared, ram):
    ram.write(CODE, REP_INSD)
    shared.gprs.rdi, shared.gprs.rcx = DATA, 1
    assert not access(pci.CONFIG_ADDRESS, DWORD | STRING | REPEATED | IN)
    shared.mailbox.value = 0x1234_5678
    assert not ports.answer()
    assert ram.read(DATA, 4) == bytes.fromhex("78563412")
    assert (shared.gprs.rdi, shared.vmcb.save.rip, shared.vmcb.save.rax) == (DATA + 4, CODE + 4, RAX)


def test_an_element_that_cannot_be_moved_is_the_exit_of_its_exception(access, handshake, shared, ram):
    ram.write(CODE, REP_OUTSD)
    save, control = shared.vmcb.save, shared.vmcb.control
    save.cr0, save.cr3 = 0x8000_0001, 0x4000
    ram.write(0x4000, b"\x03\x50")  # the first 4 MiB, by tables at 0x5000, in which only the code is
    ram.write(0x5000, b"\x03")
    shared.gprs.rsi, shared.gprs.rcx = DATA, 2
    assert access(pci.CONFIG_ADDRESS, DWORD | STRING | REPEATED)
    assert (control.exit_code, control.exit_info_1, control.exit_info_2) == (exception_exit(Vector.PF), 0, DATA)
    assert (handshake.given, shared.gprs.rcx, save.rip) == ([], 2, CODE)
