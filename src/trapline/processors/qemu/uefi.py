"""Finds UEFI firmware as its packages describe it: by the descriptors of QEMU's docs/interop/firmware.json."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import DecodeError, Struct
from msgspec.json import decode

from trapline.errors import ProcessorMissing

_FOLDERS: Final = ("/etc/qemu/firmware", "/usr/local/share/qemu/firmware", "/usr/share/qemu/firmware")
"""After the user's own; a file hides those of its name in later ones."""
_MACHINE: Final = "pc-i440fx-7.2"
"""One that firmware for any PC names or matches."""
_UNFIT: Final = frozenset(("requires-smm", "amd-sev-es", "amd-sev-snp", "intel-tdx"))
"""Features of firmware that needs more than a plain machine."""


class Uefi(NamedTuple):
    """Firmware in two flash chips."""

    code: Path
    variables: Path
    """The template of its variables, which each machine has a copy of."""


class _File(Struct):
    filename: str
    format: Literal["raw"]


class _Mapping(Struct, rename="kebab"):
    device: Literal["flash"]
    executable: _File
    nvram_template: _File


class _Target(Struct):
    architecture: str
    machines: list[str]


class _Descriptor(Struct, rename="kebab"):
    """A descriptor of firmware in two raw images for flash; others cannot be decoded."""

    interface_types: list[str]
    mapping: _Mapping
    targets: list[_Target]
    features: list[str]

    def fits(self) -> bool:
        pc = any(
            target.architecture == "x86_64" and any(fnmatchcase(_MACHINE, machine) for machine in target.machines)
            for target in self.targets
        )
        return pc and "uefi" in self.interface_types and _UNFIT.isdisjoint(self.features)


def find_uefi() -> Uefi:
    """Return the UEFI firmware for a plain 64-bit PC; raises ProcessorMissing where none is installed."""
    for path in _descriptors():
        try:
            descriptor = decode(path.read_bytes(), type=_Descriptor)
        except (OSError, DecodeError):
            continue
        files = descriptor.mapping
        found = Uefi(Path(files.executable.filename), Path(files.nvram_template.filename))
        if descriptor.fits() and found.code.is_file() and found.variables.is_file():
            return found
    raise ProcessorMissing(
        "no UEFI firmware found; install OVMF (Debian: apt install ovmf) or name one with -- -bios FILE"
    )


def _descriptors() -> Iterator[Path]:
    """Yield the descriptors in the order in which they are preferred."""
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111  # raises nothing
    found: dict[str, Path] = {}
    for folder in (f"{own}/qemu/firmware", *_FOLDERS):
        for path in Path(folder).glob("*.json"):
            found.setdefault(path.name, path)
    yield from (path for _, path in sorted(found.items()))
