"""Ports that the guest does not reach by itself. The monitor executes what their rules make of each access.

An OUT to isa-debug-exit is the guest's end, but from version 9.1 on QEMU, and the guest with it, goes on for a while.
So the monitor executes the OUT in the guest's place, and never enters the guest again.

An OUT to the chip set's reset register, and a command of the keyboard controller that resets, are told before, while
the guest's state can be read. One to port 0x92 is not: SeaBIOS writes A20 to it with each call.
"""

from collections.abc import Generator, Sequence
from typing import Final

from trapline.arch import ioio
from trapline.arch.exits import ExitCode, set_intercept
from trapline.devices import keyboard
from trapline.devices.power import RESET_CONTROL, RESET_CPU
from trapline.machine.io_map import misplaced_at_port
from trapline.machine.memory import GuestMemory

from .completion import complete
from .debug_exit import exit_ports
from .fw_cfg_dma import FwCfgDma
from .guard import Access, Steps, as_it_is, rules
from .handover import Handover
from .layout import Command, SharedMemory
from .string_io import Element, StringFault, next_element

_RESETS: Final = {RESET_CONTROL: (RESET_CPU, RESET_CPU), keyboard.COMMAND: (keyboard.PULSE_MASK, keyboard.PULSE)}
"""The bits of what is written that decide whether it resets, and their values, by port."""


class Ports:
    """Intercepts the ports, and does what the guest asks of them."""

    def __init__(
        self,
        shared: SharedMemory,
        handshake: Handover,
        memory: GuestMemory,
        command: Sequence[str],
        hints: list[str],
        *,
        splits: bool,
    ) -> None:
        """`command` is QEMU's command line. `splits`: accesses reach each device in aligned parts, as under KVM.

        `hints` gets sentences on accesses that a guest cannot have meant to permit.
        """
        self._shared = shared
        self._vmcb, self._gprs, self._iopm = shared.vmcb, shared.gprs, shared.iopm
        self._mailbox = shared.mailbox
        self._handshake = handshake
        self._memory = memory
        self._exits = exit_ports(command)
        self._splits = splits
        self._hints = hints
        self._rules = {**rules(shared.mailbox), **FwCfgDma(shared, memory).rules}
        self._doing: Generator[Access, int, bool] | None = None
        """The guest's access, while the monitor executes a part of it."""
        self._command = Command.OUT
        """What the monitor does for it."""
        self.ended = False
        """The guest has ended the machine."""
        self.leaving = False
        """It is about to, with a failure, or to reset it: its state can be read, and `leave` does it."""

    def reset(self) -> None:
        """Forget the access under way, and the address in the configuration port: a reset clears it."""
        self._doing = None
        self._mailbox.config_address = 0

    def watch(self) -> None:
        """Intercept the ports."""
        for port in (*self._rules, *_RESETS, *(port for ports in self._exits for port in ports)):
            self._iopm[port // 8] |= 1 << port % 8
        set_intercept(self._vmcb.control, ExitCode.IOIO)

    def answer(self) -> bool:
        """Go on with the guest's access; True: the exit is now that of an exception.

        False: the access is complete, or the monitor is running, and hands over again when its part is done;
        or it is `leaving`.
        """
        begins = self._doing is None
        if self._doing is None:
            self._doing = self._execute()
        try:
            part = self._doing.send(None if begins else self._mailbox.value)  # type: ignore[arg-type]
        except StopIteration as end:
            self._doing = None
            return bool(end.value)
        self._mailbox.port, self._mailbox.width, self._mailbox.value = part.port, part.size, part.value or 0
        self.ended, self.leaving = part.ends, part.resets or (part.ends and bool(part.value))
        self._command = Command.IN if part.value is None else Command.EXIT if part.ends else Command.OUT
        if not self.leaving:
            self._handshake.give(self._command)
        return False

    def leave(self) -> bool:
        """End or reset the machine if the guest is about to; False: it is not."""
        leaving, self.leaving = self.leaving, False
        if leaving:
            self._handshake.give(self._command)
        return leaving

    def _execute(self) -> Generator[Access, int, bool]:
        """Execute the access, or the next one of a string instruction; returns whether the exit is an exception's."""
        control, save = self._vmcb.control, self._vmcb.save
        info = control.exit_info_1
        port, size, covered = ioio.port(info), ioio.size(info), ioio.covered(info)
        if save.cpl and not self._hints and (told := misplaced_at_port(save, self._memory, port)) is not None:
            self._hints.append(told)
        if info & ioio.STRING:
            return (yield from self._execute_string(info))
        if not info & ioio.IN:
            yield from self._rule(Access(port, size, save.rax & covered))
            return complete(self._vmcb, control.exit_info_2)
        value = yield from self._rule(Access(port, size))
        kept = 0 if info & ioio.DWORD else save.rax & ~covered
        save.rax = kept | value & covered
        return complete(self._vmcb, control.exit_info_2)

    def _execute_string(self, info: int) -> Generator[Access, int, bool]:
        """Execute INS or OUTS; of one with REP an element, so that interrupts arrive between two."""
        control = self._vmcb.control
        port, size = ioio.port(info), ioio.size(info)
        element = next_element(self._vmcb.save, self._gprs, self._memory, self._shared.base.bit_length(), info)
        if element is None:
            return complete(self._vmcb, control.exit_info_2)
        if isinstance(element, StringFault):
            control.exit_code, control.exit_info_1, control.exit_info_2 = element
            return True
        yield from self._move(element, port, size)
        repeats = element.advance(self._gprs)
        return complete(self._vmcb, self._vmcb.save.rip if repeats else control.exit_info_2)

    def _move(self, element: Element, port: int, size: int) -> Generator[Access, int, None]:
        if element.writes:
            value = yield from self._rule(Access(port, size))
            element.store(self._memory, value)
        else:
            yield from self._rule(Access(port, size, element.load(self._memory)))

    def _rule(self, access: Access) -> Steps:
        end = self._end(access)
        if end is not None:
            return as_it_is(end)
        mask, wanted = _RESETS.get(access.port, (0, 1))
        access = access._replace(resets=(access.value or 0) & mask == wanted)
        return self._rules.get(access.port, as_it_is)(access)

    def _end(self, access: Access) -> Access | None:
        """Return the OUT that ends the machine; None: this one does not.

        Of all that is written the exit status shows 7 bits, of the first byte that reaches the device.
        """
        if access.value is None:
            return None
        for ports in self._exits:
            for offset in range(access.size if self._splits else 1):
                port = access.port + offset
                if port in ports and (self._splits or (port - ports.start) % access.size == 0):
                    return Access(port, 1, access.value >> 8 * offset & 0xFF, ends=True)
        return None
