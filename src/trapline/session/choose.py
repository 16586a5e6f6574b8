"""Which processor runs a guest, and why."""

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
"""Settings that only QEMU has, with what they are when nobody gave them."""
_LEAST, _MOST = 1 << 20, 3 << 30
"""Bytes of RAM, in one block from address 0 to where a PC has its devices."""
_OF_BARE: Final = (("entry_mode", "--entry-mode"), ("load_address", "--load-address"))


class Choice(NamedTuple):
    """The processor for a run."""

    boot: Boot | None
    """How the guest enters the bare machine in this process; None: QEMU runs it."""
    why: str

    @property
    def processor(self) -> str:
        """Its name among `PROCESSORS`."""
        return QEMU if self.boot is None else UNICORN


def choose(settings: Settings, guest: Guest | None) -> Choice:
    """Take the processor that the user named, else Unicorn for a guest that needs no PC, else QEMU."""
    bare = [name for place, name in _OF_BARE if getattr(settings, place) is not None]
    of_qemu = [name for place, default, name in _OF_QEMU if getattr(settings, place) != default]
    of_qemu += ["options after --"] if settings.qemu_options else []
    if bare and (settings.processor == QEMU or of_qemu):
        raise UsageError(f"{bare[0]} is for guests without a PC, which QEMU does not run")
    if settings.processor == QEMU:
        return Choice(None, "as you asked")
    if settings.processor == UNICORN:
        if of_qemu:
            raise UsageError(f"--processor unicorn has no QEMU for {of_qemu[0]}")
        if guest is None:
            raise UsageError("--processor unicorn needs a GUEST")
    elif guest is None or of_qemu:
        return Choice(None, f"{of_qemu[0] if of_qemu else 'no GUEST'}: QEMU's")
    elif guest.kind is GuestKind.PVH:
        return Choice(None, "a PVH kernel such as Linux expects the ACPI tables of a PC")
    boot = _boot(settings, guest)
    if isinstance(boot, NeedsPc):
        if settings.processor == UNICORN:
            raise UsageError(f"{guest.path}: {boot.reason}; leave out --processor unicorn")
        return Choice(None, boot.reason)
    return Choice(boot, f"a guest that needs no PC: {boot.description}")


def _boot(settings: Settings, guest: Guest) -> Boot | NeedsPc:
    memory = parse_memory(settings.memory)
    entry = Entry(settings.entry_mode, settings.load_address, boot_sector=settings.processor == UNICORN)
    initrd = None if settings.initrd is None else Path(settings.initrd)
    room = min(max(memory, _LEAST), _MOST)
    boot = bare_entry(guest, memory=room, entry=entry, initrd=initrd, append=settings.append)
    if room != memory and isinstance(boot, Boot):
        raise UsageError(f"--memory {settings.memory}: a guest in this process has 1M to 3G")
    return boot
