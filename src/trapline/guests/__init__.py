"""What is run: a guest is recognised by its content, then booted by QEMU or entered on a machine without firmware.

    guest.py       Guest and GuestKind
    recognise.py   the guest in a file
    open.py        the guest that a user names, which may be a sample
    qemu.py        QEMU's options for a guest
    formats/       one module a format
    boot/          what a boot loader does, for the machine without firmware
    samples/       guests of our own

Formats and their sources: the Linux x86 boot protocol (Documentation/arch/x86/boot.rst), the Multiboot
specification 0.6.96, Xen's PVH start of day (xen/include/public/elfnote.h), ELF (gABI), ISO 9660 (ECMA-119)
with El Torito 1.0, and the boot signature that a PC's BIOS looks for. What QEMU accepts is taken from
QEMU 7.2, hw/i386/{x86,multiboot}.c.
"""
