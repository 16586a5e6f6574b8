"""Where the shared memory goes: in the middle of the addresses that the CPU has, and above the guest's RAM.

The firmware describes the CPU in the mailbox, and waits. Nothing is asked of QEMU: what a CPU model has depends on the
program, the accelerator, the machine and the options.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from trapline.arch import cpuid
from trapline.arch.layout import offset_of, zero
from trapline.arch.vmcb import ControlArea
from trapline.errors import UsageError

from . import join, tables
from .command import HIDDEN, NESTED
from .confinement import REACH
from .layout import (
    ADDRESS_BITS,
    CODE_AT,
    IOPM_AT,
    JOIN_AT,
    JOIN_SIZE,
    MAILBOX_AT,
    MSRPM_AT,
    TABLES_AT,
    Mailbox,
    SharedMemory,
    base_for,
    block_at,
)
from .monitor import monitor

_OTHERS_AT: Final = MAILBOX_AT + offset_of(Mailbox, "others")
_LEGACY_BITS: Final = 36
"""Of a CPU with long mode that does not say (APM vol. 3, E.4.7)."""


@cache
def _assemble(*, several: bool) -> tuple[bytes, Mapping[str, int]]:
    """Return the monitor's code, and where in the shared memory its labels are."""
    code = monitor.build(several=several)
    blob = code.assemble(CODE_AT)
    assert len(blob) <= TABLES_AT - CODE_AT, f"the monitor has {len(blob)} bytes"
    return blob, code.labels(CODE_AT)


def load_monitor(memory: memoryview, *, others: int = 0) -> None:
    """Write the monitor's code into the shared memory; `others` is how many CPUs the boot CPU is to start."""
    memory[_OTHERS_AT : _OTHERS_AT + 4] = others.to_bytes(4, "little")
    blob, _ = _assemble(several=others > 0)
    memory[CODE_AT : CODE_AT + len(blob)] = blob


def address(shared: SharedMemory, label: str) -> int:
    """Return where a label of the monitor's code is."""
    several = shared.memory[_OTHERS_AT : _OTHERS_AT + 4] != bytes(4)
    return shared.base + _assemble(several=several)[1][label]


def place(shared: SharedMemory, ram_end: int, command: Sequence[str], *, isolated: bool = False) -> None:
    """Answer the firmware: choose the address of the shared memory, and write the tables that hold it.

    `ram_end` is where the guest's RAM ends, `command` QEMU's command line. `isolated`: no device may reach it either.
    Raises UsageError where the CPU will not do.
    """
    mailbox, memory = shared.mailbox, shared.memory
    if not mailbox.features & cpuid.LONG_MODE:
        raise UsageError(
            f"{cpu_model(command)} has no long mode, which trapline's monitor needs for 32-bit guests too: take "
            "qemu-system-x86_64 and a 64-bit model, such as -cpu qemu64"
        )
    bits = mailbox.address_bits & 0xFF or _LEGACY_BITS
    base = base_for(bits)
    if bits < ADDRESS_BITS[0] or base < max(ram_end, REACH if isolated else 0):
        what = "the guest's memory and all that devices reach" if isolated else "the guest's memory"
        raise UsageError(
            f"{cpu_model(command)} has {bits} address bits, too few for trapline's monitor above {what}: "
            "give it more with phys-bits=40, or less --memory"
        )
    shared.base = base
    tables.write(
        *(memory, base),
        nmi_handler=address(shared, monitor.NMI_HANDLER),
        blocks=map(block_at, range(1 + mailbox.others)),
    )
    if mailbox.others:
        for number in range(len(mailbox.present)):
            mailbox.present[number] = 0
        memory[JOIN_AT : JOIN_AT + JOIN_SIZE] = join.pages(base, address(shared, monitor.JOIN))
    mailbox.base_high = base >> 32
    mailbox.placing = 0


def clear_control(control: ControlArea, block: int) -> None:
    """Clear the control area of a VMCB, but for what every VMRUN here needs. `block`: where the CPU's block is."""
    zero(control)
    control.msrpm_base_pa, control.iopm_base_pa = block + MSRPM_AT, block + IOPM_AT
    control.asid = 1


def cpu_model(command: Sequence[str]) -> str:
    """Return which CPU QEMU was told to emulate; the end of that option is ours."""
    program, model = command[0].rpartition("/")[2], command[command.index("-cpu") + 1]
    for ours in (HIDDEN, NESTED):
        model = model.removesuffix(f",{ours}")
    return f"{program}'s CPU {model}"
