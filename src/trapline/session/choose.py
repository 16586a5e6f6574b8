"""Chooses the processor that runs a guest."""

from pathlib import Path
from typing import Final, NamedTuple

from trapline.arch.topology import MOST_CPUS
from trapline.errors import UsageError
from trapline.guests.boot import Entry, NeedsPc, bare_entry
from trapline.guests.guest import MEDIA_NAMES, Guest, GuestKind
from trapline.machine.boot import Boot

from .settings import QEMU, UNICORN, Settings, parse_memory

_OF_QEMU: Final = (
    ("uefi", False, "--uefi"),
    ("isolate", False, "--isolate"),
    ("accel", "auto", "--accel"),
    ("qemu", None, "--qemu"),
)
"""Settings for QEMU only, with their defaults."""
_LEAST, _MOST = 1 << 20, 3 << 30
"""Bytes of RAM on Unicorn: one block from address 0 up to where a PC has its devices."""
_AFTER: Final = "options after --"
_OF_BARE: Final = (("entry_mode", "--entry-mode"), ("load_address", "--load-address"))


class Choice(NamedTuple):
    """The processor for a run, and the reason."""

    boot: Boot | None
    """How the guest starts on Unicorn, without firmware; None: QEMU runs it."""
    why: str


def choose(settings: Settings, guest: Guest | None) -> Choice:
    """Choose the processor that the user named, else Unicorn for a guest that needs no PC, else QEMU.

    Raises UsageError for settings that the processor does not have.
    """
    _check_cpus(settings.cpus)
    bare = [name for place, name in _OF_BARE if getattr(settings, place) is not None]
    of_qemu = [name for place, default, name in _OF_QEMU if getattr(settings, place) != default]
    of_qemu += [_AFTER] if settings.qemu_options else []
    if bare and (settings.processor == QEMU or of_qemu):
        raise UsageError(f"{bare[0]} is for raw code, which runs on Unicorn only; leave it out for QEMU")
    if settings.processor == QEMU:
        return Choice(None, _and_medium("you chose it", guest))
    if settings.processor == UNICORN:
        if of_qemu:
            raise UsageError(f"{of_qemu[0]} cannot be used with --processor unicorn: {_for_qemu(of_qemu[0])}")
        if guest is None:
            raise UsageError("--processor unicorn needs a GUEST")
    elif guest is None or of_qemu:
        why = _for_qemu(of_qemu[0]) if of_qemu else "QEMU's options boot the guest"
        return Choice(None, _and_medium(why, guest))
    elif guest.kind is GuestKind.PVH:
        return Choice(None, "a PVH kernel such as Linux expects the ACPI tables of a PC")
    boot = _boot(settings, guest)
    if isinstance(boot, NeedsPc):
        if settings.processor == UNICORN:
            raise UsageError(f"{guest.path}: {boot.reason}; leave out --processor unicorn")
        return Choice(None, _and_medium(boot.reason, guest))
    return Choice(boot, f"the guest needs no PC: {boot.description}")


def _check_cpus(cpus: int | None) -> None:
    if cpus is not None and not 1 <= cpus <= MOST_CPUS:
        raise UsageError(f"--cpus {cpus}: a guest has 1 to {MOST_CPUS} CPUs")


def _for_qemu(option: str) -> str:
    return "the options after -- are QEMU's" if option == _AFTER else f"{option} is for QEMU"


def _and_medium(why: str, guest: Guest | None) -> str:
    """Return the reason, with what an image was taken for."""
    return f"{why}; {guest.description}" if guest is not None and guest.kind in MEDIA_NAMES else why


def _boot(settings: Settings, guest: Guest) -> Boot | NeedsPc:
    memory = parse_memory(settings.memory)
    entry = Entry(settings.entry_mode, settings.load_address, boot_sector=settings.processor == UNICORN)
    initrd = None if settings.initrd is None else Path(settings.initrd)
    room = min(max(memory, _LEAST), _MOST)
    boot = bare_entry(guest, memory=room, entry=entry, initrd=initrd, append=settings.append)
    if room != memory and isinstance(boot, Boot):
        raise UsageError(f"--memory {settings.memory}: a guest on Unicorn has 1M to 3G")
    return boot
