"""A machine that was switched on or reset: its RAM as it was built, its chips, and a control area of zeros."""

from collections.abc import Iterable

from trapline.arch import fxsave, msr
from trapline.arch.layout import zero
from trapline.arch.vmcb import Vmcb
from trapline.devices.machine import BareMachine
from trapline.machine.boot import Boot

from .address_map import Range
from .engine import Engine
from .memory import Ram
from .state import State


class PowerOn:
    """Prepares the machine after each power-on and reset, before its guest starts."""

    def __init__(
        self,
        boot: Boot,
        holes: Iterable[Range],
        machine: BareMachine,
        ram: Ram,
        vmcb: Vmcb,
        engine: Engine,
        state: State,
    ) -> None:
        self._boot, self._holes = boot, tuple(holes)
        self._machine, self._ram = machine, ram
        self._vmcb, self._engine, self._state = vmcb, engine, state
        self.received = b""
        """What the serial port is given before the machine is switched on, which would empty it."""

    def prepare(self) -> None:
        """Reset the machine, and load what it boots."""
        self._machine.reset()
        received, self.received = self.received, b""
        self._machine.receive(received)
        for start, end in self._holes:
            self._ram.write(start, b"\xff" * (end - start))
        for gpa, data in self._boot.loads:
            self._ram.write(gpa, data)
        zero(self._vmcb.control)
        self._vmcb.control.asid = 1
        self._state.nmi_blocked = False
        self._engine.write_fpu(fxsave.RESET)
        number = msr.msrpm_bit(msr.APIC_BASE)
        assert number is not None
        self._engine.msrpm[number // 8] |= 0b11 << number % 8
