"""Ports that the guest does not reach by itself: the PCI configuration address, and those of isa-debug-exit.

An OUT to isa-debug-exit is the guest's end, but from version 9.1 on QEMU, and the guest with it, goes on for a while.
So the monitor executes the OUT in the guest's place, and never enters the guest again.
"""

from collections.abc import Sequence

from trapline.arch import ioio
from trapline.arch.exits import ExitCode, set_intercept

from . import pci
from .debug_exit import exit_ports
from .guard import ConfigGuard, complete
from .handshake import Handshake
from .layout import Command, SharedMemory


class Ports:
    """Intercepts the ports, and does what the guest asks of them."""

    def __init__(self, shared: SharedMemory, handshake: Handshake, command: Sequence[str]) -> None:
        """`command` is QEMU's command line."""
        self._vmcb, self._gprs, self._iopm = shared.vmcb, shared.gprs, shared.iopm
        self._handshake = handshake
        self._guard = ConfigGuard(shared)
        self._exits = frozenset(port for ports in exit_ports(command) for port in ports)
        self.ended = False
        """The guest has ended the machine, or may have."""

    def reset(self) -> None:
        """Forget the address in the configuration port: a reset clears it."""
        self._guard.reset()

    def watch(self) -> None:
        """Intercept the ports."""
        for port in (pci.CONFIG_ADDRESS, *self._exits):
            self._iopm[port // 8] |= 1 << port % 8
        set_intercept(self._vmcb.control, ExitCode.IOIO)

    def answer(self) -> bool:
        """Execute the guest's access; True: a single step is due, and the exit is now that of its #DB."""
        info, save = self._vmcb.control.exit_info_1, self._vmcb.save
        first = ioio.port(info)
        exits = [port for port in range(first, first + ioio.size(info)) if port in self._exits]
        if not exits:
            return self._configure()
        if info & ioio.STRING:
            self._let_through()
            return False
        if info & ioio.IN:
            save.rax = 0 if info & ioio.DWORD else save.rax & ~ioio.covered(info)  # all ports read zero
            return complete(self._vmcb)
        # Of all that is written the exit status shows 7 bits, of the first byte that reaches the device.
        self._gprs.rax, self._gprs.rdx = save.rax >> 8 * (exits[0] - first) & 0xFF, exits[0]
        self.ended = True
        self._handshake.give(Command.EXIT)
        return False

    def _configure(self) -> bool:
        trapped = self._guard.answer()
        if self._guard.output is not None:
            self._gprs.rax = self._guard.output
            self._handshake.call(Command.OUT)
        return trapped

    def _let_through(self) -> None:
        """OUTS reads its bytes from the guest's memory: it executes by itself."""
        for port in self._exits:
            self._iopm[port // 8] &= ~(1 << port % 8)
        self._exits = frozenset()
        self.ended = True
