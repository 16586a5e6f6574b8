"""Layout of the memory that the monitor and Python share, declared once for both.

It is the BAR of a PCI device that enumeration does not find, mapped far above the guest's RAM, in the middle of the
addresses that the CPU has (`placement`). Every byte the monitor touches has bit 20 of its address clear, because the
A20 gate masks that bit for the monitor as well: only even mebibytes are used.
"""

from enum import IntEnum
from typing import Final

from trapline.arch import fxsave
from trapline.arch.layout import Array, Structure, at, layout, offset_of, u8, u16, u32, u64
from trapline.arch.msr import IOPM_SIZE, MSRPM_SIZE
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import RECORD_SIZE

from .dma_descriptor import DmaDescriptor

ADDRESS_BITS: Final = range(33, 41)
"""Widths of physical addresses that are made use of; a CPU may have more."""
LOW_BASE: Final = 0xE000_0000
"""Where the firmware maps the shared memory until it is told where to: RAM ends below, and no device is there yet."""

SIZE: Final = 16 << 20
"""Of the shared memory of a machine with one CPU (`size_for`)."""
MOST_CPUS: Final = 8
LARGEST: Final = 64 << 20
"""Of the shared memory of a machine with so many."""

RING_RECORDS: Final = 4096

ENTRY_TABLES_RAM: Final = 0x10000
"""Guest-physical address of the firmware's page tables, while the shared memory moves to where a CR3 of 32 bits cannot
point. KVM emulates an instruction whose page tables are in ROM, for a nested walk writes to them (APM vol. 2, 15.25.5).
"""
ENTRY_TABLES_SIZE: Final = 0x3000
JOIN_RAM: Final = 0x2_0000
"""Guest-physical address of the code that further CPUs begin with (`join`), while they are started."""
JOIN_SIZE: Final = 0x2000

TOKEN_AT: Final = 0x8000
"""Guest-physical address of the token, before the guest has written anything."""

DOORBELL_PORT: Final = 0xA20
"""An isa-debugcon that reads back as a port without a device."""


BY_PYTHON: Final = 1 << 30
"""In `Mailbox.injected`: Python wrote EVENTINJ, not the monitor. A bit that EVENTINJ reserves."""


def size_for(cpus: int) -> int:
    """Return the bytes of the shared memory of a machine: a power of 2, as a BAR has to have."""
    return max(SIZE, 1 << (block_at(cpus) - 1).bit_length())


def block_at(number: int) -> int:
    """Return where in the shared memory the block of a CPU is: its VMCB, its mailbox and what is addressed by that."""
    return FIRST_BLOCK + (number - 1 << BLOCK_SHIFT) if number else 0


def base_for(address_bits: int) -> int:
    """Return the guest-physical and, for the monitor, linear address of the shared memory."""
    return 1 << min(address_bits, ADDRESS_BITS[-1]) - 1


class Owner(IntEnum):
    """Who may use the mailbox and the VMCB: `Mailbox.owner`."""

    MONITOR = 0
    HOST = 1


class Command(IntEnum):
    """What the monitor is to do next: `Mailbox.command`."""

    RESUME = 0
    LOAD_AND_RESUME = 1
    """VMLOAD first: Python changed FS, GS, TR, LDTR or a system call register."""
    SHUTDOWN = 2
    """Triple-fault the machine itself."""
    ASIDE = 3
    """Run the guest of the VMCB at `ASIDE_AT` until it leaves, on RCX and RDX of the mailbox, then hand back."""
    CPUID = 4
    """Execute CPUID on the registers in the mailbox, then hand back."""
    OUT = 5
    """Write `Mailbox.value` to a port, then hand back."""
    EXIT = 6
    """Write a byte to a port, which ends the machine, and do nothing more."""
    IN = 7
    """Read `Mailbox.value` from a port, then hand back."""
    NOTE_TSC = 8
    """Read the time stamp counter into `Mailbox.tsc`, then hand back."""
    FXSAVE = 9
    """Store the x87, MMX and SSE registers at `Mailbox.fpu`, then hand back."""
    FXRSTOR = 10
    """Load them from there, then hand back."""
    STORE = 11
    """Write the 4 bytes of `Mailbox.word` to the physical `Mailbox.address`, then hand back."""
    LOAD = 12
    """Read 4 bytes at the physical `Mailbox.address` into `Mailbox.word`, then hand back."""
    SLEEP = 13
    """Hand back without the doorbell, and halt until a startup IPI comes with the next command in the mailbox."""


class Policy(IntEnum):
    """What the monitor does with an exception on its own: `VectorPlan.policy`."""

    ASK = 0
    FORWARD = 1
    """Re-inject it without a record."""
    RECORD = 2
    """Record it, then re-inject it."""


@layout(size=0x10)
class VectorPlan(Structure):
    """How the monitor forwards one vector."""

    event: u32 = at(0x0)
    """The low half of EVENTINJ."""
    arm: u32 = at(0x4)
    """Exceptions to intercept during the delivery, besides the standing ones."""
    rflags: u32 = at(0x8)
    """Bits to set in RFLAGS."""
    flags: u16 = at(0xC)
    """`Record.flags` of the record."""
    policy: u8 = at(0xE)


@layout(size=0x1000)
class Mailbox(Structure):
    """The page that the monitor's stack pointer points at; the fields it uses most come first."""

    owner: u32 = at(0x00)
    command: u32 = at(0x04)
    reset: u32 = at(0x08)
    """Set by the firmware: the machine was switched on or reset."""
    attended: u32 = at(0x0C)
    """Python polls `owner`: the monitor need not ring the doorbell."""
    intercepts: u32 = at(0x10)
    """The exceptions to intercept while nothing is being delivered."""
    signature: u32 = at(0x14)
    ring_head: u64 = at(0x18)
    """Records ever written."""
    ring_tail: u64 = at(0x20)
    """Records ever taken."""
    seen_cr0: u64 = at(0x28)
    """The guest's CR0 that the monitor's own was last matched to."""
    seen_cr4: u64 = at(0x30)
    open_shadow: u32 = at(0x38)
    """The monitor is to map RAM at the BIOS area: of a PC BIOS at the first power-on only."""
    efer: u32 = at(0xC8)
    """EFER as the firmware left it."""
    injected: u32 = at(0x3C)
    """The low half of EVENTINJ at the last VMRUN; `BY_PYTHON` tells who wrote it."""
    gprs: Gprs = at(0x40)
    tsc: u64 = at(0xC0)
    """Time stamp at which the monitor last handed over to Python."""
    base_high: u32 = at(0xCC)
    """The high half of the address where the firmware is to map the shared memory; the low half is 0."""
    token: u64 = at(0xD0)
    """What the firmware writes to `TOKEN_AT` in the guest's RAM, so that Python finds it in QEMU; 0: nothing."""
    config_address: u32 = at(0xD8)
    """What the guest last wrote to the PCI configuration address port."""
    placing: u32 = at(0xDC)
    """Set by the firmware: it has described the CPU and waits for `base_high`."""
    features: u32 = at(0xE0)
    """EDX of CPUID's extended features; 0: the CPU has none."""
    address_bits: u32 = at(0xE4)
    """Bits of a physical address; 0: CPUID does not report them."""
    ram_low: u64 = at(0xE8)
    """Where the guest's RAM below 4 GiB ends, in which the monitor may read instructions; 0: it reads none."""
    soft_rip: u64 = at(0xF0)
    """RIP of the INT n that the monitor last injected."""
    soft_arm: u32 = at(0xF8)
    """Exceptions to intercept during the delivery of an INT n; 0: the host sees each."""
    seen_rflags: u32 = at(0xFC)
    """The guest's RFLAGS when the monitor last injected an exception, for which it may have set RF."""
    plans: Array[VectorPlan] = at(0x100, count=32)
    port: u32 = at(0x300)
    """The port of IN, OUT and EXIT."""
    width: u32 = at(0x304)
    """The bytes that IN or OUT moves: 1, 2 or 4."""
    value: u32 = at(0x308)
    """What OUT and EXIT write, and IN has read: as many of its low bytes."""
    dma_high: u32 = at(0x30C)
    """What the guest last wrote to the port for the high half of a descriptor's address (`fw_cfg_dma`)."""
    dma: DmaDescriptor = at(0x310)
    """The copy of a descriptor that was checked."""
    fpu: Array[u8] = at(0x400, count=fxsave.SIZE)
    """What FXSAVE stores and FXRSTOR loads."""
    others: u32 = at(0x320)
    """Of the boot CPU: how many CPUs it is to start."""
    joined: u32 = at(0x324)
    """Of the boot CPU: how many of them are in the monitor."""
    registered: u32 = at(0x33C)
    """Of the boot CPU: how many of them are in `present`."""
    joining: u32 = at(0x328)
    """Of the boot CPU: one of them is about to be, a lock."""
    apic_id: u32 = at(0x32C)
    """Of the others: the local APIC's id, as the CPU reads it."""
    address: u64 = at(0x330)
    """The physical address of STORE and LOAD."""
    word: u32 = at(0x340)
    """What STORE writes and LOAD has read."""
    awake: u32 = at(0x338)
    """Written by the monitor: the CPU has left SLEEP."""
    present: Array[u32] = at(0x800, count=256)
    """Of the boot CPU: 1 for the local APIC's id of each of them."""


@layout(size=0x1000)
class Tables(Structure):
    """The monitor's descriptor tables and the operands that load them."""

    gdt: Array[u64] = at(0x00, count=4)
    idt: Array[u64] = at(0x20, count=6)
    """Gates 0 to 2: only an NMI is ever delivered to the monitor."""
    gdt_operand: Array[u16] = at(0x100, count=5)
    idt_operand: Array[u16] = at(0x110, count=5)
    null_idt_operand: Array[u16] = at(0x120, count=5)


VMCB_AT: Final = 0x0000
HSAVE_AT: Final = 0x1000
STACK_AT: Final = 0x2000
"""The page below the mailbox: what the monitor pushes when it takes an NMI."""
MAILBOX_AT: Final = 0x3000
CODE_AT: Final = 0x4000
TABLES_AT: Final = 0x6000
"""GDT, IDT and the operands of LGDT and LIDT."""
PML4_AT: Final = 0x7000
"""Three pages of page tables."""
MSRPM_AT: Final = 0xA000
IOPM_AT: Final = 0xC000
ASIDE_AT: Final = 0xF000
"""The VMCB of what executes beside the guest (`aside`)."""
SCRATCH_AT: Final = 0x10000
ENTRY_TABLES_AT: Final = 0x18000
"""The page tables that the firmware's entry runs with for a moment, which are then in the guest's RAM."""
JOIN_AT: Final = 0x1_C000
"""The code that further CPUs begin with, which is then in the guest's RAM."""
RING_AT: Final = 2 << 20
NESTED_AT: Final = 4 << 20
"""Nested page tables, up to 1 MiB of them."""
BIOS_PAGES_AT: Final = 6 << 20
"""The pages of the guest's firmware that differ in ours, as nested paging shows them, up to 1 MiB of them."""
FIRST_BLOCK: Final = 8 << 20
"""The block of CPU 1; the one of CPU 0 is at the beginning."""
BLOCK_SHIFT: Final = 22
"""Of the distance between two blocks; each has its ring where `RING_AT` says, counted from its beginning."""

DMA_AT: Final = MAILBOX_AT + offset_of(Mailbox, "dma")
_FPU_AT: Final = MAILBOX_AT + offset_of(Mailbox, "fpu")

_MIB: Final = 1 << 20
assert not _FPU_AT % fxsave.ALIGNMENT, "FXSAVE would raise #GP"
assert MSRPM_AT + MSRPM_SIZE <= IOPM_AT, "the permission maps overlap"
assert IOPM_AT + IOPM_SIZE <= ASIDE_AT, "the I/O permission map overlaps what follows"


class SharedMemory:
    """Typed views over what one CPU has of the shared memory; all are zero-copy."""

    def __init__(self, memory: memoryview, number: int = 0) -> None:
        """`number` is the CPU's."""
        self.memory = memory
        self.at = at = block_at(number)
        self.base = base_for(ADDRESS_BITS[-1])
        """The guest-physical address of the whole, once the firmware has been told."""
        self.vmcb = Vmcb.from_buffer(memory, at + VMCB_AT)
        self.mailbox = Mailbox.from_buffer(memory, at + MAILBOX_AT)
        self.gprs = self.mailbox.gprs
        self.plans = list(self.mailbox.plans)
        self.msrpm = memory[at + MSRPM_AT : at + MSRPM_AT + MSRPM_SIZE]
        self.iopm = memory[at + IOPM_AT : at + IOPM_AT + IOPM_SIZE]
        self.fpu = memory[at + _FPU_AT : at + _FPU_AT + fxsave.SIZE]
        self.ring = memory[at + RING_AT : at + RING_AT + RING_RECORDS * RECORD_SIZE]

    @property
    def block(self) -> int:
        """The guest-physical address of the CPU's own block."""
        return self.base + self.at

    @property
    def size(self) -> int:
        """The bytes of the whole."""
        return len(self.memory)

    @property
    def nothing(self) -> int:
        """The end of the CPU's addresses, as many bytes as the shared memory has: there is no memory."""
        return 2 * self.base - self.size


assert RING_RECORDS * RECORD_SIZE <= _MIB, "the ring leaves its even mebibyte"
