"""Portable executables, as far as is needed to know an EFI program (Microsoft PE/COFF; UEFI 2.10, 2.1.1)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_MZ: Final = b"MZ"
_HEADER_AT: Final = 0x3C
_SIGNATURE: Final = b"PE\0\0"
_MACHINE_AT, _SUBSYSTEM_AT, _READ = 4, 0x5C, 0x5E
"""From the signature; the subsystem has the same place in PE32 and PE32+."""
AMD64: Final = 0x8664
MACHINES: Final = {0x14C: "32-bit x86", 0xAA64: "AArch64", 0x1C2: "Arm", 0x5064: "RISC-V", 0xEBC: "EFI byte code"}
EFI_APPLICATION: Final = 10
EFI_SUBSYSTEMS: Final = {EFI_APPLICATION: "program", 11: "boot driver", 12: "run-time driver", 13: "ROM"}


class PeHeader(NamedTuple):
    """The fields that tell what a file is for."""

    machine: int
    subsystem: int


def find(head: bytes) -> PeHeader | None:
    """Return the header of a file that begins with `head`; None: it is not a portable executable."""
    if head[:2] != _MZ or len(head) < _HEADER_AT + 4:
        return None
    (at,) = struct.unpack_from("<I", head, _HEADER_AT)
    if head[at : at + 4] != _SIGNATURE or len(head) < at + _READ:
        return None
    (machine,) = struct.unpack_from("<H", head, at + _MACHINE_AT)
    (subsystem,) = struct.unpack_from("<H", head, at + _SUBSYSTEM_AT)
    return PeHeader(machine, subsystem)


def is_efi_program(header: PeHeader) -> bool:
    """Whether 64-bit UEFI firmware of a PC starts it."""
    return header == (AMD64, EFI_APPLICATION)


def refusal(header: PeHeader) -> str:
    """Return a sentence on a file that is not such a program."""
    kind = EFI_SUBSYSTEMS.get(header.subsystem)
    if kind is None:
        return (
            "Windows program (PE): a guest's firmware cannot start it; give an EFI program, a bzImage, a multiboot or "
            "PVH kernel, or an image that boots"
        )
    if header.machine != AMD64:
        machine = MACHINES.get(header.machine, f"machine {header.machine:#x}")
        return f"EFI {kind} for {machine}: the guest's firmware starts programs for x86-64"
    return f"EFI {kind}: the guest's firmware starts programs only; load it from one, or from the UEFI shell"
