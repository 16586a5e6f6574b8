"""Ways by which a guest ends or resets its machine, and the A20 gate that shares a port with one of them."""

from enum import Enum
from typing import Final, NamedTuple

SYSTEM_CONTROL: Final = 0x92
"""Port A of the PS/2: bit 0 resets, bit 1 is A20."""
RESET_CONTROL: Final = 0xCF9
"""The chip set's register."""
RESET_CPU: Final = 1 << 2
"""The bit of it that resets."""
PM1_CONTROL: Final = (0x604, 0xB004)
"""ACPI's PM1a control block of QEMU, now and in its first years, which is also that of Bochs."""
DEBUG_EXIT: Final = 0xF4
"""QEMU's isa-debug-exit, where kvm-unit-tests and many kernels expect it."""
SHUTDOWN: Final = 0x8900
"""Bochs switches off when it reads its word here."""

SLEEP_ENABLE: Final = 1 << 13
SLEEP_TYPE: Final = 7 << 10
"""Of PM1a control; type 0 is soft off (S5)."""


class Action(Enum):
    """What a guest can ask of its machine."""

    RESET = "reset"
    POWER_OFF = "power off"
    EXIT = "exit"


SUCCESS: Final = 1
"""The status of a debug exit with 0."""


class Request(NamedTuple):
    """What this guest asked for."""

    action: Action
    cause: str
    """How, for the user."""
    status: int = 0
    """The exit status as QEMU would end with it, for EXIT."""

    @property
    def is_success(self) -> bool:
        """Whether a guest ends so that has done its work: a power off, or a debug exit with 0."""
        return self.action is not Action.RESET and (self.action is not Action.EXIT or self.status == SUCCESS)


class Power:
    """Keeps the first request; the processor asks for it after each access."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Be as firmware leaves it: A20 enabled, nothing asked for."""
        self.request: Request | None = None
        self.a20 = True
        """Address line 20 follows the CPU; when off, it is 0."""
        self._fast_reset = 0
        self._reset_type = 0
        self._pm1 = 0
        self._word = b""

    def ask(self, request: Request) -> None:
        """Take a request, unless there is one."""
        if self.request is None:
            self.request = request

    def reset(self, cause: str) -> None:
        """Ask for a reset."""
        self.ask(Request(Action.RESET, cause))

    def read_system_control(self, port: int, size: int) -> int:
        """Read port 0x92."""
        return self._fast_reset | self.a20 << 1

    def write_system_control(self, port: int, size: int, value: int) -> None:
        """Write port 0x92: a rising bit 0 resets."""
        self.a20 = bool(value & 2)
        if value & 1 and not self._fast_reset:
            self.reset("port 0x92")
        self._fast_reset = value & 1

    def read_reset_control(self, port: int, size: int) -> int:
        """Read port 0xCF9."""
        return self._reset_type

    def write_reset_control(self, port: int, size: int, value: int) -> None:
        """Write port 0xCF9."""
        self._reset_type = value & 2
        if value & RESET_CPU:
            self.reset("port 0xcf9")

    def read_pm1(self, port: int, size: int) -> int:
        """Read PM1a control."""
        return self._pm1 >> 8 * (port & 1)

    def write_pm1(self, port: int, size: int, value: int) -> None:
        """Write PM1a control, whole or one byte of it."""
        shift = 8 * (port & 1)
        written = self._pm1 & ~((1 << 8 * size) - 1 << shift) | value << shift
        self._pm1 = written & ~SLEEP_ENABLE  # which always reads 0
        if written & SLEEP_ENABLE and not written & SLEEP_TYPE:
            self.ask(Request(Action.POWER_OFF, f"ACPI, port {port:#x}"))

    def read_exit(self, port: int, size: int) -> int:
        """Read the exit device."""
        return 0

    def write_exit(self, port: int, size: int, value: int) -> None:
        """End with an odd status, as a process can have it."""
        self.ask(Request(Action.EXIT, f"port {port:#x}", (value << 1 | 1) & 0xFF))

    def read_shutdown(self, port: int, size: int) -> int:
        """Read Bochs' port."""
        return 0xFF

    def write_shutdown(self, port: int, size: int, value: int) -> None:
        """Take a letter of "Shutdown"."""
        self._word = (self._word + bytes((value,)))[-8:]
        if self._word == b"Shutdown":
            self.ask(Request(Action.POWER_OFF, f"port {port:#x}"))
