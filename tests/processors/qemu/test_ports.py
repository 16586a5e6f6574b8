import pytest

from trapline.arch.exits import ExitCode, exception_exit, is_intercepted
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.processors.qemu import pci
from trapline.processors.qemu.layout import Command
from trapline.processors.qemu.ports import Ports

IN, STRING, BYTE, WORD, DWORD = 1, 1 << 2, 1 << 4, 1 << 5, 1 << 6
COMMAND = ["qemu", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "isa-debug-exit"]
EXITS = {0xF4, 0xF5, 0xF6, 0xF7, 0x501, 0x502}
RAX = 0x1122_3344_5566_7788


class Handshake:
    """Notes the commands that the monitor gets, and RAX and RDX with each."""

    def __init__(self, gprs):
        self.gprs = gprs
        self.given, self.called = [], []

    def give(self, command):
        self.given.append((command, self.gprs.rax, self.gprs.rdx))

    def call(self, command):
        self.called.append((command, self.gprs.rax))


@pytest.fixture
def handshake(shared):
    return Handshake(shared.gprs)


@pytest.fixture
def ports(shared, handshake):
    ports = Ports(shared, handshake, COMMAND)
    ports.watch()
    return ports


@pytest.fixture
def access(ports, shared):
    """Return a function that plays an IN or OUT at a port."""

    def access(port, form, flags=RFLAGS.ALWAYS_ONE):
        control, save = shared.vmcb.control, shared.vmcb.save
        control.exit_code, control.exit_info_1, control.exit_info_2 = ExitCode.IOIO, port << 16 | form, 0x102
        save.rip, save.rax, save.rflags, control.interrupt_shadow = 0x100, RAX, flags, 1
        return ports.answer()

    return access


def watched(shared):
    return {port for port in range(0x10000) if shared.iopm[port // 8] >> port % 8 & 1}


def test_the_ports_are_intercepted(ports, shared):
    assert is_intercepted(shared.vmcb.control, ExitCode.IOIO)
    assert watched(shared) == {pci.CONFIG_ADDRESS, *EXITS}


@pytest.mark.parametrize(
    ("port", "form", "value", "at"),
    [
        (0xF4, BYTE, 0x88, 0xF4),
        (0xF4, WORD, 0x88, 0xF4),
        (0xF4, DWORD, 0x88, 0xF4),
        (0xF6, BYTE, 0x88, 0xF6),
        (0xF7, DWORD, 0x88, 0xF7),
        (0xF3, WORD, 0x77, 0xF4),
        (0xF1, DWORD, 0x55, 0xF4),
        (0x500, DWORD, 0x77, 0x501),
        (0x502, BYTE, 0x88, 0x502),
    ],
)
def test_an_out_is_the_end(access, ports, handshake, shared, port, form, value, at):
    assert not ports.ended
    assert not access(port, form)
    assert handshake.given == [(Command.EXIT, value, at)]
    assert ports.ended
    assert shared.vmcb.save.rip == 0x100


@pytest.mark.parametrize(
    ("form", "rax"),
    [(BYTE, 0x1122_3344_5566_7700), (WORD, 0x1122_3344_5566_0000), (DWORD, 0)],
)
@pytest.mark.parametrize("trap", [0, RFLAGS.TF])
def test_an_in_reads_zero_and_the_guest_goes_on(access, ports, handshake, shared, form, rax, trap):
    assert access(0xF4, form | IN, RFLAGS.ALWAYS_ONE | trap) is bool(trap)
    save, control = shared.vmcb.save, shared.vmcb.control
    assert (save.rip, save.rax, control.interrupt_shadow) == (0x102, rax, 0)
    assert control.exit_code == (exception_exit(Vector.DB) if trap else ExitCode.IOIO)
    assert bool(save.dr6 & DR6.BS) is bool(trap)
    assert not ports.ended
    assert not handshake.given


def test_string_instructions_execute_by_themselves_and_may_end_the_machine(access, ports, handshake, shared):
    assert not access(0xF4, STRING | BYTE)
    assert watched(shared) == {pci.CONFIG_ADDRESS}
    assert ports.ended
    assert not handshake.given
    assert shared.vmcb.save.rip == 0x100


def test_the_configuration_address_goes_out_before_the_guest_goes_on(access, handshake, shared):
    assert not access(pci.CONFIG_ADDRESS, DWORD)
    assert handshake.called == [(Command.OUT, RAX & 0xFFFF_FFFF)]
    assert shared.vmcb.save.rip == 0x102
    assert not access(pci.CONFIG_ADDRESS, DWORD | IN)
    assert shared.vmcb.save.rax == RAX & 0xFFFF_FFFF
    assert len(handshake.called) == 1


def test_a_reset_clears_the_configuration_address(access, ports, shared):
    access(pci.CONFIG_ADDRESS, DWORD)
    ports.reset()
    access(pci.CONFIG_ADDRESS, DWORD | IN)
    assert shared.vmcb.save.rax == 0
