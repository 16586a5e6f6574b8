"""Which guest is run, and how: what a client may choose of the keywords of the library."""

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from trapline.errors import UsageError
from trapline.guests.guest import GuestKind
from trapline.session.settings import MachineOptions, Settings, find_guest
from trapline.typed import integer

from .files import Files

LONGEST: Final = 600.0
"""Seconds that a call may run a guest."""
Timeout = Annotated[float, Field(gt=0, le=LONGEST, description="Seconds that the guest may run in this call.")]
_ON_DISKS: Final = (GuestKind.DISK, GuestKind.FLOPPY)


class Options(BaseModel):
    """How a guest is run; leave out what you do not need."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    processor: Literal["auto", "unicorn", "qemu"] = "auto"
    """unicorn: in process, for ELF kernels and raw code that need no PC; qemu: a PC; auto: chosen by the guest."""
    memory: str = "256M"
    """RAM, such as 64M or 2G."""
    cpus: Annotated[int, Field(ge=1, le=8)] | None = None
    """How many CPUs the guest has; by default one."""
    schedule: Annotated[int, Field(ge=0)] | None = None
    """With unicorn and several CPUs: a seed for their turns; the same seed leads to the same run."""
    entry_mode: Literal[16, 32, 64] | None = None
    """The guest is raw code without a header, entered in this mode."""
    load_address: str | None = None
    """Where raw code is loaded and entered; by default 0x7c00 in 16-bit mode, else 0x100000."""
    media: Literal["floppy", "disk", "cdrom"] | None = None
    """What an image that a BIOS boots is an image of."""
    uefi: bool = False
    """UEFI firmware starts the guest, and not a BIOS; of an EFI program it does so anyway."""
    initrd: str | None = None
    """A file: the initial RAM disk of a Linux kernel, or a module of a multiboot kernel."""
    append: str | None = None
    """The kernel's command line, such as console=ttyS0."""
    symbols: list[str] = []
    """Symbol files, each FILE or FILE@SLIDE: ELF, System.map, kallsyms. An ELF guest's own are used anyway."""
    isolate: bool = False
    """Protect trapline's monitor in QEMU from a hostile guest; slower."""
    qemu_options: list[str] = []
    """Further options for QEMU. Only where the user started the server with --allow-qemu-options."""


class Access(NamedTuple):
    """What the user allowed when the server was started."""

    files: Files
    qemu: str | None = None
    """The QEMU program; None: qemu-system-x86_64 on PATH."""
    qemu_options: bool = False
    """Whether clients may give options to QEMU, which name files and programs of their own."""


def keywords(access: Access, guest: str, options: Options) -> tuple[str, MachineOptions]:
    """Return the guest and the keywords for `Machine`. Disks are not written to. Raises UsageError."""
    files = access.files
    if options.qemu_options and not access.qemu_options:
        raise UsageError(
            "qemu_options: this server gives QEMU none, for they can name any file or program; the user allows them "
            "when the server is started: trapline mcp --allow-qemu-options"
        )
    found: MachineOptions = {
        "processor": options.processor,
        "memory": options.memory,
        "cpus": options.cpus,
        "schedule": options.schedule,
        "entry_mode": options.entry_mode,
        "media": options.media,
        "uefi": options.uefi,
        "append": options.append,
        "symbols": [files.symbols(each) for each in options.symbols],
        "isolate": options.isolate,
        "survive_crashes": True,
    }
    if options.load_address is not None:
        found["load_address"] = integer(options.load_address, "load_address", 0, (1 << 64) - 1)
    if options.initrd is not None:
        found["initrd"] = files.find(options.initrd)
    name = files.guest(guest)
    of_qemu = list(options.qemu_options)
    if options.entry_mode is None and _is_disk(name, options.media):
        of_qemu.append("-snapshot")
    if of_qemu:
        found["qemu_options"] = of_qemu
    if access.qemu is not None and options.processor != "unicorn" and options.entry_mode is None:
        found["qemu"] = access.qemu
    return name, found


def _is_disk(name: str, media: str | None) -> bool:
    guest = find_guest(Settings(guest=name, media=media))
    return guest is not None and guest.kind in _ON_DISKS
