"""EFI programs that the acceptance tests boot, from Debian's packages."""

from __future__ import annotations

from pathlib import Path

from .testguests import grub_core, only, package

GRUB_CHAIN_CONFIG = """\
set root=hd0,msdos1
multiboot /kernel
boot
"""
GRUB_EFI_MODULES = ("fat", "part_gpt", "part_msdos", "serial", "terminal", "echo", "halt", "normal")


def grub_efi() -> Path:
    """Return GRUB as an EFI program, with a configuration inside."""
    return grub_core("x86_64-efi", package("grub-efi-amd64-bin") / "usr/lib/grub/x86_64-efi", GRUB_EFI_MODULES)


def grub_chain() -> Path:
    """Return GRUB as an EFI program that boots the multiboot file `kernel` in the first partition of its disk."""
    modules = (*GRUB_EFI_MODULES, "multiboot", "boot")
    folder = package("grub-efi-amd64-bin") / "usr/lib/grub/x86_64-efi"
    return grub_core("x86_64-efi", folder, modules, name="chain", config=GRUB_CHAIN_CONFIG)


def ipxe_efi() -> Path:
    """Return iPXE as an EFI program."""
    return only(package("ipxe"), "boot/ipxe.efi")
