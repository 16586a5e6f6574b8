"""QEMU's command line: ours, then the guest's, then the user's; options that cannot work are refused with a reason."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from trapline.errors import UsageError
from trapline.typed import read_integer, shortened

from . import debug_exit, flash, layout, pci
from .debug_exit import exit_ports
from .flash import Chip
from .ram import below_4g

_REFUSED: Final = {
    "-m": "the guest's memory is set with --memory",
    "-accel": "the accelerator is chosen with --accel",
    "-enable-kvm": "the accelerator is chosen with --accel",
    "-daemonize": "trapline has to remain QEMU's parent",
    "-incoming": "a migrated guest already runs without its monitor",
    "-loadvm": "a saved guest already runs without its monitor",
    "-qmp": "trapline uses QMP itself",
    "-preconfig": "trapline starts the machine itself",
    "-microvm": "only pc and q35 machines can be run",
}
_AS_DRIVE: Final = "give firmware in flash with -drive if=pflash,format=raw,file=FILE"
_REFUSED_PROPERTIES: Final = {
    "accel": _REFUSED["-accel"],
    "memory": _REFUSED["-m"],
    "memory-backend": _REFUSED["-m"],
    "max-ram-below-4g": "trapline reads the guest's memory where QEMU puts it by itself",
    "smp": "give the number of CPUs with -smp",
    "firmware": "give a BIOS image with -bios",
    "pflash0": _AS_DRIVE,
    "pflash1": _AS_DRIVE,
}
"""Properties of the machine, by the part of their name before a dot."""
GDB_CHARDEV: Final = "trapline.gdb"
"""Name of the character device that QEMU's gdbstub is started on, once breakpoints are asked for."""
_TOPOLOGY: Final = ("sockets", "dies", "cores", "threads")
_ISA_SERIAL: Final = "isa-serial"
HIDDEN: Final = "-svm"
NESTED: Final = "+svm,+nrip-save,kvm=off"
"""What a CPU needs for the monitor. The guest does not see KVM's own CPUID leaves: it could not use the MSRs that they
promise, of which the permission map has none, and SeaBIOS would.
"""
XAPIC_ONLY: Final = ",-x2apic"
"""With several CPUs: writes to the local APIC are seen in memory (`apic`)."""
_DEFAULT_CPU: Final = {"tcg": "qemu64", "kvm": "host"}
_MACHINE: Final = {"tcg": "accel=tcg", "kvm": "accel=kvm,smm=off"}
"""Properties that follow the user's. An SMI is taken inside the guest, as without us; under KVM that was never tried.
"""


class UserOptions(NamedTuple):
    """The user's QEMU options: those that trapline handles, and the rest."""

    cpu: str | None
    bios: str | None
    flash: Chip | None
    """The flash chip that has the firmware; the others are in the rest."""
    machines: tuple[str, ...]
    """The machine types and properties, option by option: QEMU merges them."""
    cpus: int
    """How many CPUs the machine has."""
    smp: str | None
    """As QEMU is told."""
    own_serial: bool
    """The user's options connect serial ports."""
    rest: tuple[str, ...]

    @property
    def machine(self) -> str:
        """The machine types and properties, joined."""
        return ",".join(self.machines)

    @property
    def asks_for_smm(self) -> bool:
        """The machine is to have system management mode."""
        return any(part.startswith("smm=") and part != "smm=off" for part in self.machine.split(","))


def read_user_options(arguments: Sequence[str]) -> UserOptions:
    """Sort the options after `--`; raises UsageError for one that cannot work here."""
    taken: dict[str, list[str]] = {"-cpu": [], "-bios": [], "-machine": [], "-smp": [], "-pflash": []}
    rest: list[str] = []
    own_serial = False
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        name = "-" + argument.lstrip("-") if argument.startswith("-") else argument
        name = "-machine" if name == "-M" else name
        position += 1
        if name in _REFUSED:
            raise UsageError(f"{argument} cannot be given to QEMU: {_REFUSED[name]}")
        if name in taken:
            if position == len(arguments):
                raise UsageError(f"{argument} needs a value")
            value = arguments[position]
            taken[name].append(flash.drive(value) if name == "-pflash" else value)
            position += 1
        elif name == "-drive" and flash.is_flash("".join(arguments[position : position + 1])):
            taken["-pflash"].append(arguments[position])
            position += 1
        elif name != "-no-reboot":  # what happens anyway
            own_serial = own_serial or _places_serial(name, arguments[position : position + 1])
            rest.append(argument)
    _check_machine(",".join(taken["-machine"]))
    cpus = _count_cpus(taken["-smp"], rest)
    chip, other_chips = flash.take_firmware(taken["-pflash"])
    if chip is not None and taken["-bios"]:
        raise UsageError("-bios cannot be given to QEMU: the firmware is in flash, with if=pflash")
    return UserOptions(
        taken["-cpu"][-1] if taken["-cpu"] else None,
        taken["-bios"][-1] if taken["-bios"] else None,
        chip,
        tuple(taken["-machine"]),
        cpus,
        taken["-smp"][-1] if taken["-smp"] and cpus > 1 else None,
        own_serial,
        (*(part for one in other_chips for part in ("-drive", one)), *rest),
    )


def _places_serial(name: str, value: Sequence[str]) -> bool:
    """Say whether an option tells QEMU where serial ports go, so that it has no other of its own accord."""
    if name in ("-device", "-global"):
        return any(one.startswith(_ISA_SERIAL) or f'"{_ISA_SERIAL}"' in one for one in value)
    return name in ("-serial", "-nographic")


def takes_stdio(options: Sequence[str]) -> bool:
    """Return whether options connect something to QEMU's standard input and output."""
    return any(
        "stdio" in option or option.startswith("curses") or option.lstrip("-") in ("nographic", "curses")
        for option in options
    )


def _check_machine(machine: str) -> None:
    for part in machine.split(","):
        name, _, value = part.partition("=")
        kind = value if name == "type" else part if "=" not in part else ""
        if kind and not (kind in ("pc", "q35") or kind.startswith(("pc-i440fx-", "pc-q35-"))):
            raise UsageError(f"-machine {kind}: only pc and q35 machines can be run")
        refused = _REFUSED_PROPERTIES.get(name.partition(".")[0])
        if refused is not None:
            raise UsageError(f"-machine {name}= cannot be given to QEMU: {refused}")


def _count_cpus(asked: Sequence[str], rest: Sequence[str]) -> int:
    """Return how many CPUs the machine has; raises UsageError where they cannot be had."""
    numbers = {_processors(value) for value in asked} or {1}
    cpus = max(numbers)
    if len(numbers) > 1:
        raise UsageError("-smp: two different numbers of CPUs")
    if cpus > layout.MOST_CPUS:
        raise UsageError(f"-smp: a guest has {layout.MOST_CPUS} CPUs here at most")
    if cpus > 1 and "-icount" in rest:
        raise UsageError("-icount cannot be given to QEMU with several CPUs: it takes what trapline executes for time")
    return cpus


def _processors(value: str) -> int:
    """Return how many CPUs an -smp asks for. Raises UsageError for what is not a number, and for CPUs to be added."""
    numbers = dict(part.partition("=")[::2] for part in value.split(",") if "=" in part)
    first = value.split(",")[0]
    given = {name: read_integer(numbers[name]) for name in ("cpus", "maxcpus", *_TOPOLOGY) if name in numbers}
    if "=" not in first:
        given["cpus"] = read_integer(first)
    known = {name: number for name, number in given.items() if number is not None}
    if len(known) < len(given):
        raise UsageError(f"-smp {shortened(value)}: not a number of processors")
    room = math.prod(known.get(name, 1) for name in _TOPOLOGY)
    most = known.get("maxcpus", max(room, known.get("cpus", 1)))
    started = known.get("cpus", most)
    if started != max(most, room):
        raise UsageError(f"-smp {shortened(value)}: no CPU can be added later here; all are there from the beginning")
    return started


class Descriptors(NamedTuple):
    """The files that QEMU inherits, by number: nothing has a name that could be left over."""

    monitor: int
    firmware: int
    doorbell: int
    qmp: int
    gdb: int
    log: int
    variables: int | None = None
    """A second flash chip."""


def command(
    qemu: str,
    *,
    accelerator: str,
    memory: int,
    descriptors: Descriptors,
    guest: Sequence[str],
    user: UserOptions,
    hide_svm: bool,
    isolated: bool,
    serial: Sequence[str],
) -> list[str]:
    """Return the whole command line. `memory` is in bytes; `serial` says where the console goes.

    `isolated`: without what could reach the shared memory (`confinement`).
    """
    device, function = pci.MONITOR_DEVICE
    cpu = f"{user.cpu or _DEFAULT_CPU[accelerator]},{HIDDEN if hide_svm else NESTED}"
    cpu += XAPIC_ONLY if user.cpus > 1 else ""
    return [
        qemu,
        *("-machine", "pc"),
        *(argument for value in user.machines for argument in ("-machine", value)),
        *("-machine", _MACHINE[accelerator]),
        *("-cpu", cpu),
        *("-m", f"{memory >> 20}M"),
        *(() if user.smp is None else ("-smp", user.smp)),
        *("-object", _shared_file("trapline.monitor", layout.size_for(user.cpus), descriptors.monitor)),
        *("-device", f"ivshmem-plain,memdev=trapline.monitor,addr={device:02x}.{function}"),
        *("-chardev", f"socket,id=trapline.doorbell,fd={descriptors.doorbell}"),
        *(
            "-device",
            f"isa-debugcon,iobase={layout.DOORBELL_PORT:#x},readback=0xff,chardev=trapline.doorbell",
        ),
        *("-chardev", f"socket,id=trapline.qmp,fd={descriptors.qmp}"),
        *("-mon", "chardev=trapline.qmp,mode=control"),
        *("-chardev", f"socket,id={GDB_CHARDEV},fd={descriptors.gdb}"),
        *_firmware(descriptors, user.flash),
        *("-display", "none"),
        *(
            ("-d", "cpu_reset", "-D", by_number(descriptors.log))
            if accelerator == "tcg" and not _logs(user.rest)
            else ()
        ),
        *(_isolation(user.machine, memory) if isolated else ()),
        *(() if exit_ports([*guest, *user.rest]) else debug_exit.DEFAULT),
        *(() if user.own_serial else serial),
        *guest,
        *user.rest,
    ]


def _firmware(descriptors: Descriptors, chip: Chip | None) -> tuple[str, ...]:
    if chip is None:
        return "-bios", by_number(descriptors.firmware)
    files = (descriptors.firmware, descriptors.variables)
    return flash.options([by_number(file) for file in files if file is not None], writable=chip.writable)


def _logs(options: Sequence[str]) -> bool:
    """Return whether the user has QEMU write a log, of which there is one only."""
    return any(option in ("-d", "--d", "-D", "--D") for option in options)


def _isolation(machine: str, memory: int) -> tuple[str, ...]:
    """Return what leaves out QEMU's own network card, and a device that lays RAM over the firmware if there is so much.

    kvmvapic maps RAM by its offset in QEMU's block wherever a guest says (kvmvapic.c, vapic_map_rom_writable).
    """
    vapic = ("-global", "apic-common.vapic=off") if below_4g(machine, memory) < memory else ()
    return ("-nic", "none", *vapic)


def _shared_file(name: str, size: int, descriptor: int) -> str:
    return f"memory-backend-file,id={name},size={size},mem-path={by_number(descriptor)},share=on"


def by_number(descriptor: int) -> str:
    """Return the name under which a process that inherits a descriptor can open its file again."""
    return f"/proc/self/fd/{descriptor}"
