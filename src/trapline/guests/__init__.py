"""What is run: recognise a guest by its content, and tell QEMU how to boot it. `bare` is for machines
without a PC's firmware, `samples` has guests of our own.

Formats and their sources: the Linux x86 boot protocol (Documentation/arch/x86/boot.rst), the Multiboot
specification 0.6.96, Xen's PVH start of day (xen/include/public/elfnote.h), ELF (gABI), ISO 9660 (ECMA-119)
with El Torito 1.0, and the boot signature that a PC's BIOS looks for. What QEMU accepts is taken from
QEMU 7.2, hw/i386/{x86,multiboot}.c.
"""

from .image import Guest, GuestKind, open_guest, raw_image, recognise
from .options import in_file, qemu_options

__all__ = [
    "Guest",
    "GuestKind",
    "in_file",
    "open_guest",
    "qemu_options",
    "raw_image",
    "recognise",
]
