"""Chooses the processor that runs a guest."""

from pathlib import Path
from typing import Final, NamedTuple

from trapline.errors import UsageError
from trapline.guests.boot import Entry, NeedsPc, bare_entry
from trapline.guests.guest import Guest, GuestKind
from trapline.machine.boot import Boot

from .settings import QEMU, UNICORN, Settings, parse_memory

_OF_QEMU: Final = (
    ("isolate", False, "--isolate"),
    ("accel", "auto", "--accel"),
    ("qemu", None, "--qemu"),
)
"""Settings for QEMU only, with their defaults."""
_LEAST, _MOST = 1 << 20, 3 << 30
"""Bytes of RAM on Unicorn: one block from address 0 up to where a PC has its devices."""
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
    bare = [name for place, name in _OF_BARE if getattr(settings, place) is not None]
    of_qemu = [name for place, default, name in _OF_QEMU if getattr(settings, place) != default]
    of_qemu += ["options after --"] if settings.qemu_options else []
    if bare and (settings.processor == QEMU or of_qemu):
        raise UsageError(f"{bare[0]} is for raw code, which runs on Unicorn only; leave it out for QEMU")
    if settings.processor == QEMU:
        return Choice(None, "you chose it")
    if settings.processor == UNICORN:
        if of_qemu:
            raise UsageError(f"{of_qemu[0]} cannot be used with --processor unicorn: it is for QEMU")
        if guest is None:
            raise UsageError("--processor unicorn needs a GUEST")
    elif guest is None or of_qemu:
        return Choice(None, f"{of_qemu[0]} is for QEMU" if of_qemu else "QEMU's options boot the guest")
    elif guest.kind is GuestKind.PVH:
        return Choice(None, "a PVH kernel such as Linux expects the ACPI tables of a PC")
    boot = _boot(settings, guest)
    if isinstance(boot, NeedsPc):
        if settings.processor == UNICORN:
            raise UsageError(f"{guest.path}: {boot.reason}; leave out --processor unicorn")
        return Choice(None, boot.reason)
    return Choice(boot, f"the guest needs no PC: {boot.description}")


def _boot(settings: Settings, guest: Guest) -> Boot | NeedsPc:
    memory = parse_memory(settings.memory)
    entry = Entry(settings.entry_mode, settings.load_address, boot_sector=settings.processor == UNICORN)
    initrd = None if settings.initrd is None else Path(settings.initrd)
    room = min(max(memory, _LEAST), _MOST)
    boot = bare_entry(guest, memory=room, entry=entry, initrd=initrd, append=settings.append)
    if room != memory and isinstance(boot, Boot):
        raise UsageError(f"--memory {settings.memory}: a guest on Unicorn has 1M to 3G")
    return boot
