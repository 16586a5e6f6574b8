"""The local APIC of a CPU, as memory (APM vol. 2, 16.3 to 16.6; xAPIC mode only).

That of the boot CPU starts as firmware leaves it: enabled, the 8259s connected to LINT0 as ExtINT, LINT1 the NMI.
Others start as an INIT leaves them: disabled, everything masked.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from .interrupt_command import EXTINT, FIXED, INIT, LOWEST_PRIORITY, NMI, STARTUP, Command, Message, decode
from .lapic_timer import LapicTimer

BASE: Final = 0xFEE00000
ENABLE: Final = 1 << 11
"""Of MSR 0x1B, which has the address above."""

VERSION: Final = 0x00050014
"""Six LVT entries; 0x14 is an on-chip APIC."""

MASKED: Final = 1 << 16
ENABLED: Final = 1 << 8
"""Of the spurious interrupt vector register."""

SEND_ILLEGAL_VECTOR: Final = 1 << 5
RECEIVE_ILLEGAL_VECTOR: Final = 1 << 6
ILLEGAL_REGISTER: Final = 1 << 7

TASK_PRIORITY: Final = 0x80
END_OF_INTERRUPT: Final = 0xB0
LOGICAL_DESTINATION: Final = 0xD0
DESTINATION_FORMAT: Final = 0xE0
SPURIOUS: Final = 0xF0
IN_SERVICE: Final = 0x100
"""The first of eight words."""
COMMAND: Final = 0x300
"""The lower half of the interrupt command register, whose write sends."""
COMMAND_HIGH: Final = 0x310
LVT: Final = 0x320
"""The first of the entries of the local vector table."""
TIMER_COUNT: Final = 0x380
TIMER_DIVIDE: Final = 0x3E0
TIMER: Final = 0
LINT0: Final = 3
LINT1: Final = 4
ERROR: Final = 5
LVT_WRITABLE: Final = (0x300FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF)
"""Timer, thermal, performance counter, LINT0, LINT1, error: at 0x320 to 0x370."""


class Lapic:
    """Registers, priorities and the timer. IRR, ISR and TMR are ints of 256 bits, one a vector."""

    def __init__(
        self,
        number: int,
        clock: Callable[[], int],
        *,
        eoi: Callable[[int], None],
        send: Callable[[Command], None],
        signal: Callable[[Message], None],
    ) -> None:
        """`number` is the first id. `eoi` tells the I/O APIC that a level triggered vector ended.

        `send` carries out an interrupt command; `signal` gets an INIT or a startup IPI for this CPU.
        """
        self._number, self._eoi, self._send, self._signal = number, eoi, send, signal
        self.lint0 = False
        """The level of LINT0, the output of the 8259s."""
        self.timer = LapicTimer(clock)
        self._readers, self._writers = self._read_table(), self._write_table()
        self.reset(enabled=True)

    def reset(self, *, enabled: bool) -> None:
        """Be as firmware leaves that of the boot CPU, or, unless `enabled`, as after an INIT; the id is the first."""
        self.irr = self.isr = self.tmr = 0
        self.tpr = 0
        self.nmi = False
        """An NMI waits for the CPU."""
        self._id, self._ldr = self._number, 0
        self._model = 0xF
        self._svr = 0xFF | (ENABLED if enabled else 0)
        self._errors = self._esr = 0
        self._icr = 0
        lines = (0x8700, 0x8400) if enabled else (MASKED, MASKED)
        self._lvt = [MASKED, MASKED, MASKED, *lines, MASKED]
        self.timer.reset()

    @property
    def takes_extint(self) -> bool:
        """The 8259s reach the CPU through LINT0."""
        return self._lvt[LINT0] & (MASKED | 0x700) == EXTINT << 8

    @property
    def ppr(self) -> int:
        """The processor priority: the task's or that of the vector in service, the higher one."""
        serving = (self.isr.bit_length() - 1) & 0xF0 if self.isr else 0
        return self.tpr if self.tpr & 0xF0 >= serving else serving

    def pending(self) -> int | None:
        """Return the vector that the CPU would take now."""
        if not self.irr or not self._svr & ENABLED:
            return None
        vector = self.irr.bit_length() - 1
        return vector if vector & 0xF0 > self.ppr & 0xF0 else None

    def acknowledge(self) -> int:
        """Move the pending vector into service and return it; without one, return the spurious vector."""
        vector = self.pending()
        if vector is None:
            return self._svr & 0xFF
        self.irr ^= 1 << vector
        self.isr |= 1 << vector
        return vector

    def next_event(self) -> int | None:
        """Return when the timer raises its interrupt next, in virtual ns."""
        return None if self._lvt[TIMER] & MASKED else self.timer.deadline

    def advance(self) -> None:
        """Raise the timer's interrupt if its time has come."""
        if self.timer.expire():
            self._local(TIMER)

    def set_lint0(self, level: bool) -> None:
        """Drive LINT0, the output of the 8259s. ExtINT is the reader's matter: `takes_extint`."""
        rising, self.lint0 = level and not self.lint0, level
        if rising:
            self._local(LINT0)

    def raise_lint1(self) -> None:
        """Pulse LINT1, which is the NMI unless the guest says otherwise."""
        self._local(LINT1)

    def receive(self, message: Message) -> None:
        """Take a message for this CPU; SMI and ExtINT messages have no effect."""
        if message.mode in (FIXED, LOWEST_PRIORITY):
            self._accept(message.vector, level=message.level)
        elif message.mode == NMI:
            self.nmi = True
        elif message.mode in (INIT, STARTUP):
            self._signal(message)

    def takes(self, message: Message) -> bool:
        """Return whether a message is for this CPU."""
        return message.is_for(self._id, self._ldr, self._model)

    def read(self, offset: int) -> int:
        """Read the 32-bit register at `offset`, a multiple of 16."""
        reader = self._readers.get(offset)
        if reader is not None:
            return reader()
        self._error(ILLEGAL_REGISTER)
        return 0

    def write(self, offset: int, value: int) -> None:
        """Write the 32-bit register at `offset`, a multiple of 16; what is read-only stays."""
        writer = self._writers.get(offset)
        if writer is not None:
            writer(value)
        elif offset not in self._readers:
            self._error(ILLEGAL_REGISTER)

    def _read_table(self) -> dict[int, Callable[[], int]]:
        table: dict[int, Callable[[], int]] = {
            0x020: lambda: self._id << 24,
            0x030: lambda: VERSION,
            TASK_PRIORITY: lambda: self.tpr,
            0x090: lambda: 0,  # the arbitration priority, which modern APICs have no use for
            0x0A0: lambda: self.ppr,
            END_OF_INTERRUPT: lambda: 0,
            LOGICAL_DESTINATION: lambda: self._ldr << 24,
            DESTINATION_FORMAT: lambda: self._model << 28 | 0x0FFFFFFF,
            SPURIOUS: lambda: self._svr,
            0x280: lambda: self._esr,
            COMMAND: lambda: self._icr & 0xFFFFFFFF,
            COMMAND_HIGH: lambda: self._icr >> 32,
            TIMER_COUNT: lambda: self.timer.initial,
            0x390: self.timer.current,
            TIMER_DIVIDE: lambda: self.timer.divide_code,
        }
        for word in range(8):
            for base, bits in ((IN_SERVICE, self._isr_word), (0x180, self._tmr_word), (0x200, self._irr_word)):
                table[base + 16 * word] = partial(bits, 32 * word)
        for number in range(len(LVT_WRITABLE)):
            table[LVT + 16 * number] = partial(self._read_lvt, number)
        return table

    def _write_table(self) -> dict[int, Callable[[int], None]]:
        table: dict[int, Callable[[int], None]] = {
            0x020: self._write_id,
            TASK_PRIORITY: self._write_tpr,
            END_OF_INTERRUPT: self._end_of_interrupt,
            LOGICAL_DESTINATION: self._write_ldr,
            DESTINATION_FORMAT: self._write_dfr,
            SPURIOUS: self._write_svr,
            0x280: self._write_esr,
            COMMAND: self._write_icr_low,
            COMMAND_HIGH: self._write_icr_high,
            TIMER_COUNT: self.timer.start,
            TIMER_DIVIDE: self.timer.divide,
        }
        for number in range(len(LVT_WRITABLE)):
            table[LVT + 16 * number] = partial(self._write_lvt, number)
        return table

    def _isr_word(self, shift: int) -> int:
        return self.isr >> shift & 0xFFFFFFFF

    def _tmr_word(self, shift: int) -> int:
        return self.tmr >> shift & 0xFFFFFFFF

    def _irr_word(self, shift: int) -> int:
        return self.irr >> shift & 0xFFFFFFFF

    def _read_lvt(self, number: int) -> int:
        return self._lvt[number]

    def _write_id(self, value: int) -> None:
        self._id = value >> 24

    def _write_tpr(self, value: int) -> None:
        self.tpr = value & 0xFF

    def _write_ldr(self, value: int) -> None:
        self._ldr = value >> 24

    def _write_dfr(self, value: int) -> None:
        self._model = value >> 28

    def _write_esr(self, value: int) -> None:
        self._esr, self._errors = self._errors, 0

    def _write_icr_low(self, value: int) -> None:
        self._icr = self._icr & ~0xFFFFFFFF | value & 0xFFFFEFFF
        command = decode(self._icr)
        if command.message.mode in (FIXED, LOWEST_PRIORITY) and command.message.vector < 16:
            self._error(SEND_ILLEGAL_VECTOR)
        else:
            self._send(command)

    def _write_icr_high(self, value: int) -> None:
        self._icr = self._icr & 0xFFFFFFFF | (value & 0xFF000000) << 32

    def _write_svr(self, value: int) -> None:
        self._svr = value & 0x1FF
        if not value & ENABLED:
            self._lvt = [entry | MASKED for entry in self._lvt]

    def _write_lvt(self, number: int, value: int) -> None:
        value &= LVT_WRITABLE[number]
        if not self._svr & ENABLED:
            value |= MASKED
        self._lvt[number] = value
        if number == TIMER:
            self.timer.periodic = bool(value & 1 << 17)

    def _end_of_interrupt(self, value: int) -> None:
        if not self.isr:
            return
        vector = self.isr.bit_length() - 1
        self.isr ^= 1 << vector
        if self.tmr >> vector & 1:
            self._eoi(vector)

    def _local(self, number: int) -> None:
        """Deliver a local interrupt as its LVT entry says."""
        entry = self._lvt[number]
        if entry & MASKED:
            return
        mode = FIXED if number in (TIMER, ERROR) else entry >> 8 & 7
        if mode == FIXED:
            self._accept(entry & 0xFF, level=False)
        elif mode == NMI:
            self.nmi = True

    def _accept(self, vector: int, *, level: bool) -> None:
        if not self._svr & ENABLED:
            return
        if vector < 16:
            self._error(RECEIVE_ILLEGAL_VECTOR)
            return
        bit = 1 << vector
        self.irr |= bit
        self.tmr = self.tmr | bit if level else self.tmr & ~bit

    def _error(self, error: int) -> None:
        if not self._errors & error:
            self._errors |= error
            self._local(ERROR)
