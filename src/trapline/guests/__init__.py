"""What is run: recognise a guest by its content, and say how QEMU or a bare machine boots it.

Formats and their sources: the Linux x86 boot protocol (Documentation/arch/x86/boot.rst), the Multiboot
specification 0.6.96, Xen's PVH start of day (xen/include/public/elfnote.h), ELF (gABI), ISO 9660 (ECMA-119)
with El Torito 1.0, and the boot signature that a PC's BIOS looks for. What QEMU accepts is taken from
QEMU 7.2, hw/i386/{x86,multiboot}.c.
"""

from .bare import Entry, bare_entry
from .image import Guest, GuestKind, raw_image, recognise
from .options import qemu_options

__all__ = ["Entry", "Guest", "GuestKind", "bare_entry", "qemu_options", "raw_image", "recognise"]
