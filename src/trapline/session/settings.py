"""The settings of a run, and how they are parsed."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypedDict

from trapline.arch.mask import parse_mask
from trapline.arch.vectors import FORCEABLE
from trapline.errors import UsageError
from trapline.guests.guest import MEDIA, Guest, GuestKind
from trapline.guests.open import open_guest
from trapline.guests.recognise import raw_image
from trapline.machine.processor import Processor
from trapline.trace.tally import Tally
from trapline.typed import shortened

from .console import Sink

PathLike: TypeAlias = str | os.PathLike[str]

AUTO: Final = "auto"
UNICORN: Final = "unicorn"
QEMU: Final = "qemu"
PROCESSORS: Final = (AUTO, UNICORN, QEMU)
DEFAULT_MEMORY: Final = 256 << 20

_UNITS: Final = {"": 20, "k": 10, "m": 20, "g": 30}
_SIZE: Final = re.compile(r"([0-9]{1,15})([kmg]?)(?:i?b)?", re.ASCII | re.IGNORECASE)


class MachineOptions(TypedDict, total=False):
    """The keywords of `Machine` and `run`: those of `Settings`, then those of `Outlets`."""

    exceptions: str | int | None
    processor: str | Processor
    memory: int | str
    cpus: int | None
    schedule: int | None
    entry_mode: int | None
    load_address: int | None
    media: str | None
    uefi: bool
    initrd: PathLike | None
    append: str | None
    isolate: bool
    accel: str
    reboot: bool
    survive_crashes: bool
    qemu: str | None
    qemu_options: Sequence[str]
    symbols: Sequence[str]
    syntax: str
    console: Sink | PathLike | None
    output: PathLike | IO[str] | None
    force: bool
    live: Callable[[str], None] | None
    keep: int
    where: str | None
    registers: bool
    tally: Tally | None


@dataclass(frozen=True, kw_only=True)
class Outlets:
    """Where a run sends the guest's console and the records."""

    console: Sink | PathLike | None = None
    """Gets the guest's console output: a binary file, the path of one, or a function that takes bytes."""
    inherited: IO[bytes] | None = None
    """On QEMU: connect the guest's console to this process's standard input and to this file, instead of `console`."""
    output: PathLike | IO[str] | None = None
    """A file of text or the path of one, for the records with the evidence for `trapline explain`.

    The suffix of a path chooses the format: `.parquet`, `.arrow`, `.jsonl.zst`, `.pftrace` or JSON lines
    (docs/trace-format.md).
    """
    force: bool = False
    """Whether paths of `output` and `console` may name files that hold something, which is lost once the guest runs."""
    live: Callable[[str], None] | None = None
    """A function that gets a line of text for each exception as it happens."""
    keep: int = 1_000_000
    """How many records are kept in memory for `exceptions`: the newest ones."""
    registers: bool = True
    """Whether the file of records has the general registers: they are more than half of it."""
    where: str | None = None
    """A condition: only exceptions for which it holds are recorded. All forced ones are intercepted all the same."""
    tally: Tally | None = None
    """Counts what is recorded, for another thread that shows the counts while the guest runs; None: one of its own."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run. Each is an option of the command line, of the same name, or always on there."""

    guest: PathLike | bytes | None = None
    """A file, `sample:NAME`, or code to be entered in `entry_mode`; None: the guest that QEMU's options boot."""
    exceptions: str | int | None = None
    """The exceptions to force, as `all,!pf` or as a mask; None: those of the process's parameter, or all if not set."""
    processor: str | Processor = AUTO
    """The processor: `auto`, `unicorn`, `qemu`, or one of your own."""
    memory: int | str = DEFAULT_MEMORY
    """The guest's RAM in bytes, or with a unit: `64M`, `2G`."""
    cpus: int | None = None
    """How many CPUs the guest has, 1 to 8; None: one, or two for a sample that needs a second."""
    schedule: int | None = None
    """In this process: a seed for the turns of several CPUs, counted in instructions then, as time is, also with one:
    the same seed leads to the same run. None: turns of two milliseconds."""
    entry_mode: int | None = None
    """16, 32 or 64: the guest is code without a header."""
    load_address: int | None = None
    """The gpa where raw code is loaded and entered; None: 0x7C00 in 16-bit mode, else 1 MiB."""
    media: str | None = None
    """Of an image that a BIOS boots: `floppy`, `disk` or `cdrom`; None: what its size and its content say."""
    uefi: bool = False
    """Whether UEFI firmware boots the guest, on QEMU; EFI programs and images that no BIOS boots have it anyway."""
    initrd: PathLike | None = None
    """The initial RAM disk of a Linux kernel, or a module of a multiboot kernel."""
    append: str | None = None
    """The kernel's command line."""
    isolate: bool = False
    """Whether to protect the monitor in QEMU by nested paging, for a hostile guest; slower."""
    accel: str = AUTO
    """QEMU's accelerator: `auto`, `tcg`, or `kvm`, which needs nested SVM."""
    reboot: bool = False
    """Whether a reset of the machine restarts the guest instead of ending the run."""
    survive_crashes: bool = False
    """On Unicorn: run the guest, and callbacks, in a thread where Unicorn's crash ends the run and not this process."""
    qemu: str | None = None
    """The QEMU program; None: qemu-system-x86_64 on PATH."""
    qemu_options: Sequence[str] = ()
    """Further options for QEMU, as on its command line."""
    symbols: Sequence[str] = ()
    """Symbol files, each FILE or FILE@SLIDE: ELF, PE, System.map or kallsyms. A guest's own symbols are used too."""
    syntax: str = "intel"
    """The syntax of disassembled instructions: `intel` or `att`."""


def read_options(
    guest: PathLike | bytes | None, options: MachineOptions, inherited: IO[bytes] | None = None
) -> tuple[Settings, Outlets]:
    """Split the keywords of a call into settings and outlets. Raises TypeError for an unknown keyword."""
    keywords: dict[str, Any] = dict(options)
    for name in ("symbols", "qemu_options"):
        if name in keywords:
            keywords[name] = listed(keywords[name])
    outlets = {field.name: keywords.pop(field.name) for field in fields(Outlets) if field.name in keywords}
    return Settings(guest=guest, **keywords), Outlets(inherited=inherited, **outlets)


def listed(texts: Sequence[str]) -> Sequence[str]:
    """Return texts; one that is given as it is, which is a sequence of its characters, is one text."""
    return (texts,) if isinstance(texts, str) else texts


def find_guest(settings: Settings) -> Guest | None:
    """Open the guest that the settings name, if any. Raises UsageError and GuestImageError."""
    guest, medium = settings.guest, None
    if settings.media is not None:
        if settings.media not in MEDIA:
            raise UsageError(f"--media {shortened(settings.media)}: choose one of {', '.join(MEDIA)}")
        if guest is None or isinstance(guest, bytes) or settings.entry_mode is not None:
            raise UsageError("--media is for a GUEST that a BIOS boots")
        medium = MEDIA[settings.media]
    if guest is None:
        return None
    if isinstance(guest, bytes):
        if settings.entry_mode is None:
            raise UsageError("a guest given as bytes needs entry_mode: 16, 32 or 64")
        return Guest(Path("code"), GuestKind.RAW, f"{len(guest)} bytes of code", guest, in_memory=True)
    if settings.entry_mode is not None:
        return raw_image(Path(guest))
    return open_guest(os.fspath(guest), medium)


def parse_memory(size: int | str) -> int:
    """Return a size in bytes: an int as it is, text as for QEMU, which is a number of MiB or ends with K, M or G."""
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise UsageError(f"--memory {shortened(size)}: not a size such as 64M or 2G")
    return int(match[1]) << _UNITS[match[2].lower()]


def choose_mask(exceptions: str | int | None) -> int | None:
    """Return the mask of exceptions to force; None: that of the process's parameter.

    Vectors that may not be forced: a warning for those in a hexadecimal mask, a UsageError for those that are named.
    """
    from trapline.hypervisor.parameters import force_intercept_exceptions_mask, warn_refused

    if exceptions is None:
        return None if force_intercept_exceptions_mask.is_set() else FORCEABLE
    if isinstance(exceptions, int):
        return exceptions
    parsed = parse_mask(exceptions)
    warn_refused(row.vector for row in parsed.dropped)
    return parsed.mask
