"""The local APICs of several CPUs: their writes are executed in the guest's place, but for INITs.

An INIT that reached QEMU's APIC would take the target out of the monitor, in the guest or not, and SVM's intercept does
not hold it back. A startup IPI does nothing to a CPU that does not wait for one in QEMU, as none does here, but to wake
it from SLEEP (QEMU 7.2: apic_sipi, x86_cpu_pending_interrupt).
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from trapline.arch.bits import M32
from trapline.arch.paging import PAGE
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.devices import lapic
from trapline.devices.interrupt_command import ALL, BROADCAST, INIT, NMI, OTHERS, SELF, decode
from trapline.errors import ProcessorError
from trapline.machine.linear import next_rip
from trapline.machine.memory import GuestMemory

from .apic_stores import store_at_rip
from .completion import complete

_ASSERTS: Final = 1 << 14
_LEVEL: Final = 1 << 15
_AFTER_INIT: Final = (
    *((lapic.SPURIOUS, 0xFF), (lapic.TASK_PRIORITY, 0), (lapic.LOGICAL_DESTINATION, 0)),
    *((lapic.DESTINATION_FORMAT, M32), (lapic.TIMER_COUNT, 0), (lapic.TIMER_DIVIDE, 0)),
    *((lapic.LVT + 0x10 * number, lapic.MASKED) for number in range(len(lapic.LVT_WRITABLE))),
)
"""Registers and what they hold after an INIT (APM vol. 2, 16.3.2; QEMU's apic_init_reset)."""
_IN_SERVICE: Final = range(lapic.IN_SERVICE, lapic.IN_SERVICE + 0x80, 0x10)


class ApicCpu(Protocol):
    """What is asked of a CPU here."""

    vmcb: Vmcb
    gprs: Gprs
    number: int

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory."""

    @property
    def apic_id(self) -> int:
        """Of its local APIC."""

    def load(self, address: int) -> int:
        """Read 4 bytes of physical memory as the CPU does, which is stopped."""

    def store(self, address: int, value: int) -> None:
        """Write 4 bytes."""

    def note_nmi(self) -> None:
        """The guest sends it an NMI."""


class Command(NamedTuple):
    """An interrupt command that resets or starts CPUs."""

    value: int
    """What is written to the low half of the register."""
    targets: Sequence[int]
    """Numbers of CPUs."""
    init: bool
    """It resets them, and a startup IPI does not."""
    stepped: bool = False
    """A single step is due after it, and the exit is now that of its #DB."""

    @property
    def vector(self) -> int:
        """Of a startup IPI."""
        return self.value & 0xFF


def execute(cpu: ApicCpu, cpus: Sequence[ApicCpu]) -> Command | bool:
    """Execute the store at which a CPU has left for a nested page fault.

    True: the exit is now that of an exception. False: the guest is to go on. Raises ProcessorError where it cannot be.
    """
    control, save = cpu.vmcb.control, cpu.vmcb.save
    address = control.exit_info_2
    found = store_at_rip(save, cpu.gprs, cpu.memory)
    if not lapic.BASE <= address < lapic.BASE + PAGE or found is None:
        raise ProcessorError(
            f"CPU {cpu.number} writes to {address:#x}, where its local APIC is, by an instruction that trapline does "
            "not know there; use one CPU"
        )
    value = found.finish(cpu.load(address) if found.reads else 0, save, cpu.gprs)
    stepped = complete(cpu.vmcb, next_rip(save, found.length))
    offset = address - lapic.BASE
    if offset & ~0xF == lapic.COMMAND:
        command = decode(value | cpu.load(lapic.BASE + lapic.COMMAND_HIGH) << 32)
        if command.starts:
            if command.message.logical:
                raise ProcessorError(f"CPU {cpu.number} starts others by a logical destination; use one CPU")
            init = command.message.mode == INIT
            targets = [one.number for one in _targets(cpu, cpus, command.shorthand, command.message.destination)]
            if init and 0 not in targets:
                cpu.store(address, value & ~_ASSERTS | _LEVEL)  # which has no effect
                return Command(value, targets, init=True, stepped=stepped)
            cpu.store(address, value)  # an INIT of the boot CPU resets the machine (`unlock`)
            return stepped if init else Command(value, targets, init=False, stepped=stepped)
        if command.message.mode == NMI and not command.message.logical:
            for one in _targets(cpu, cpus, command.shorthand, command.message.destination):
                one.note_nmi()
    cpu.store(address, value)
    return stepped


def _targets(cpu: ApicCpu, cpus: Sequence[ApicCpu], shorthand: int, destination: int) -> Iterator[ApicCpu]:
    for one in cpus:
        if shorthand in (ALL, OTHERS):
            meant = one is not cpu or shorthand == ALL
        elif shorthand == SELF:
            meant = one is cpu
        else:
            meant = destination in (one.apic_id, BROADCAST)
        if meant:
            yield one


def send_nmi(messenger: ApicCpu, target: ApicCpu) -> None:
    """Let a stopped CPU send an NMI, as a device would, so that no register of its local APIC changes."""
    messenger.store(lapic.BASE | target.apic_id << 12, NMI << 8)


def reset(cpu: ApicCpu) -> None:
    """Put the local APIC of a stopped CPU in its state after an INIT, but for requests that it has not taken."""
    for register, value in _AFTER_INIT:
        cpu.store(lapic.BASE + register, value)
    for register in _IN_SERVICE:
        for _ in range(cpu.load(lapic.BASE + register).bit_count()):
            cpu.store(lapic.BASE + lapic.END_OF_INTERRUPT, 0)
