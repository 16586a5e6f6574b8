"""The bare machine: the devices, wired. What the processor asks of it.

    machine = BareMachine(64 << 20, output=sys.stdout.buffer.write, clock=lambda: virtual_ns)
    machine.port_write(0x3F8, 1, ord("x"))
    vector = machine.cpus[0].pending()

The processor calls `advance` when `next_event` is reached, and takes a vector when the guest may be interrupted. Each
access reads the clock by itself, so a guest that polls sees what has happened until then.
"""

from collections.abc import Callable
from typing import Final

from . import cmos, debugcon, fw_cfg, ioapic, keyboard, lapic, pic, pit, power, testdev, uart
from .chips import ChipState
from .hints import Hints, memory_hint
from .interrupt_command import LOWEST_PRIORITY, OTHERS, SELF, Command, Message
from .local import LocalInterrupts
from .ports import PortBus
from .power import Request

COM1_IRQ: Final = 4
_OFFSET: Final = 0xFFF
"""The bits of an address inside a page; a chip's registers have a page of their own."""


class BareMachine:
    """A PC but for its CPUs and RAM. Nothing that a guest does raises an error here."""

    def __init__(
        self,
        memory: int,
        *,
        output: Callable[[bytes], object],
        debug: Callable[[bytes], object] | None = None,
        clock: Callable[[], int],
        cpus: int = 1,
        epoch: int = 946_684_800,
    ) -> None:
        """Build a PC with `memory` bytes of RAM.

        `output` gets what the guest writes to COM1, `debug` what it writes to port 0xE9 (None: the same). `clock`
        gives the virtual time in ns and never goes back. `cpus` is how many there are, `epoch` the time of day at
        virtual time 0 in seconds since 1970; by default the year 2000 begins.
        """
        self._hints = Hints()
        self._ioapic = ioapic.IoApic(self._deliver)
        self._pics = pic.PicPair(lambda level: self._lapic.set_lint0(level))
        self.cpus = tuple(
            LocalInterrupts(
                number,
                clock,
                None if number else self._pics,
                eoi=self._ioapic.eoi,
                send=self._send,
                reset=self._init,
                tell=self._hints.tell,
            )
            for number in range(cpus)
        )
        """What interrupts and starts each CPU; the first one is the boot CPU."""
        self._lapic = self.cpus[0].lapic
        self._power = power.Power()
        self._pit = pit.Pit(clock, self._line(0))
        self._keyboard = keyboard.KeyboardController(self._power, self._line(1), self._no_keyboard)
        self._uart = uart.Uart(output, self._line(COM1_IRQ))
        self._cmos = cmos.Cmos(memory, clock, self._line(8), epoch)
        self._fw_cfg = fw_cfg.FwCfg(memory, cpus)
        self._testdev = testdev.TestDevice([self._line(irq) for irq in range(16)])
        self._ports = PortBus(self._hints)
        self._wire(debugcon.DebugConsole(output if debug is None else debug))

    def _wire(self, console: debugcon.DebugConsole) -> None:
        claim = self._ports.claim
        for chip in (pic.MASTER, pic.SLAVE):
            claim(chip, 2, self._pics.read, self._pics.write)
        claim(pic.ELCR, 2, self._pics.read_elcr, self._pics.write_elcr)
        claim(pit.PORT, 4, self._pit.read, self._pit.write)
        claim(pit.SPEAKER, 1, self._pit.read_speaker, self._pit.write_speaker)
        for port in (keyboard.DATA, keyboard.COMMAND):
            claim(port, 1, self._keyboard.read, self._keyboard.write)
        claim(cmos.INDEX, 2, self._cmos.read, self._cmos.write)
        claim(uart.COM1, 8, self._uart.read, self._uart.write)
        claim(debugcon.PORT, 1, console.read, console.write)
        claim(fw_cfg.SELECTOR, 2, self._fw_cfg.read, self._fw_cfg.write, width=2)
        for port in (testdev.REGISTER, testdev.FLUSH):
            claim(port, 4, self._testdev.read, self._testdev.write, width=4)
        claim(testdev.LINES, 16, self._testdev.read, self._testdev.pull)
        it = self._power
        claim(power.SYSTEM_CONTROL, 1, it.read_system_control, it.write_system_control)
        claim(power.RESET_CONTROL, 1, it.read_reset_control, it.write_reset_control)
        claim(power.DEBUG_EXIT, 4, it.read_exit, it.write_exit, width=4)
        claim(power.SHUTDOWN, 1, it.read_shutdown, it.write_shutdown)
        for port in power.PM1_CONTROL:
            claim(port, 2, it.read_pm1, it.write_pm1, width=2)

    def port_read(self, port: int, size: int) -> int:
        """IN: read 1, 2 or 4 bytes."""
        self.advance()
        return self._ports.read(port, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT: write 1, 2 or 4 bytes."""
        self.advance()
        self._ports.write(port, size, value)

    def mmio_read(self, gpa: int, size: int, cpu: int = 0) -> int:
        """Read from where there is no RAM: the APICs' pages, all-ones elsewhere. Each CPU has its own local APIC."""
        self.advance()
        ones = (1 << 8 * size) - 1
        page, offset = gpa & ~_OFFSET, gpa & _OFFSET
        if page == lapic.BASE:
            return self.cpus[cpu].lapic.read(offset & ~0xF) >> 8 * (offset & 0xF) & ones
        if page == ioapic.BASE:
            return self._ioapic.read(offset & 0xF0) >> 8 * (offset & 0xF) & ones
        if testdev.MEMORY <= gpa < testdev.MEMORY + testdev.MEMORY_SIZE:
            return self._testdev.mmio_read(gpa - testdev.MEMORY, size)
        self._note(gpa)
        return ones

    def mmio_write(self, gpa: int, size: int, value: int, cpu: int = 0) -> None:
        """Write to where there is no RAM. The APICs take only whole aligned registers."""
        self.advance()
        page, offset = gpa & ~_OFFSET, gpa & _OFFSET
        whole = size >= 4 and not offset & 0xF
        if page == lapic.BASE:
            if whole:
                self.cpus[cpu].lapic.write(offset, value & 0xFFFFFFFF)
        elif page == ioapic.BASE:
            if whole:
                self._ioapic.write(offset & 0xFF, value & 0xFFFFFFFF)
        elif testdev.MEMORY <= gpa < testdev.MEMORY + testdev.MEMORY_SIZE:
            self._testdev.mmio_write(gpa - testdev.MEMORY, size, value)
        else:
            self._note(gpa)

    def receive(self, data: bytes) -> None:
        """Give the guest input on COM1."""
        self._uart.receive(data)

    def chips(self) -> ChipState:
        """Return the state of the interrupt controllers and of the A20 gate."""
        return ChipState(*self._pics.state(), self._lapic.isr, self.cpus[0].arrived, self.a20)

    def press_nmi(self) -> None:
        """Push the NMI button: LINT1 of every CPU, unless the guest switched NMIs off at port 0x70."""
        if not self._cmos.nmi_disabled:
            for cpu in self.cpus:
                cpu.lapic.raise_lint1()

    def next_event(self) -> int | None:
        """Return the virtual ns of the next timer expiry that could interrupt a CPU; None: nothing is armed."""
        irq0 = self._pit.next_event() if self._irq0_heard else None
        times = (*(cpu.lapic.next_event() for cpu in self.cpus), irq0, self._cmos.interrupts.next_event())
        return min((time for time in times if time is not None), default=None)

    def advance(self) -> None:
        """Read the clock; a timer whose time has come interrupts once, however late."""
        self._pit.advance()
        for cpu in self.cpus:
            cpu.lapic.advance()
        self._cmos.interrupts.advance()

    def reset(self) -> None:
        """Start again, as after firmware. Input that waits and the hints stay."""
        for cpu in self.cpus:
            cpu.reset()
        for device in (self._ioapic, self._pics, self._pit, self._keyboard, self._uart):
            device.reset()
        self._cmos.reset()
        self._fw_cfg.reset()
        self._testdev.reset()
        self._power.restart()

    @property
    def a20(self) -> bool:
        """False: address line 20 is held at 0."""
        return self._power.a20

    @property
    def request(self) -> Request | None:
        """What the guest asked of its machine since the last reset: the first request."""
        return self._power.request

    @property
    def hints(self) -> list[str]:
        """Sentences about devices that the guest looked for and that are not here."""
        return self._hints.texts

    def tell(self, what: str, sentence: str) -> None:
        """Keep a sentence for `hints`, unless there is one about this already."""
        self._hints.tell(what, sentence)

    @property
    def _irq0_heard(self) -> bool:
        return not self._ioapic.masked(2) or (self._lapic.takes_extint and not self._pics.masked(0))

    def _line(self, irq: int) -> Callable[[bool], None]:
        """Return the line of an ISA interrupt: it ends at both interrupt controllers."""
        pin = irq or 2

        def drive(level: bool) -> None:
            self._pics.set_line(irq, level)
            self._ioapic.set_line(pin, level)

        return drive

    def _send(self, sender: int, command: Command) -> None:
        """Carry out an interrupt command of a CPU."""
        if command.deasserts:
            return
        if command.shorthand == SELF:
            self.cpus[sender].lapic.receive(command.message)
            return
        absent = sender if command.shorthand == OTHERS else None
        if not self._deliver(command.message, absent) and command.starts:
            self._hints.note_cpu(len(self.cpus))

    def _deliver(self, message: Message, absent: int | None = None) -> bool:
        """Give a message to the CPUs that it is for, but for `absent`; return whether there are any."""
        takers = [cpu.lapic for cpu in self.cpus if cpu.number != absent and cpu.lapic.takes(message)]
        if message.mode == LOWEST_PRIORITY and len(takers) > 1:
            takers = [min(takers, key=lambda apic: apic.ppr)]
        for apic in takers:
            apic.receive(message)
        return bool(takers)

    def _init(self) -> None:
        self._power.reset("an INIT to its own CPU")

    def _no_keyboard(self) -> None:
        self._hints.note("a keyboard", "port 0x60")

    def _note(self, gpa: int) -> None:
        name = memory_hint(gpa)
        if name is not None:
            self._hints.note(name, f"address {gpa:#x}")
