"""How guests enter a bare machine: a CPU and RAM, no firmware, no devices of a PC.

    raw image       at an address, in 16-, 32- or 64-bit code
    boot sector     at 0000:7C00 in real mode, with interrupt vectors that lead to an IRET
    multiboot 1     32-bit code, EAX the magic, EBX the information (Multiboot specification 0.6.96, 3.2 and 3.3)
    PVH             32-bit code, EBX the start info (Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h)
    ELF             64-bit code with the first 4 GiB mapped to themselves; a 32-bit file in 32-bit code, no paging

What a protocol needs beside the image is one block, as low as the image leaves room, from 0x1000 up: 16 KiB
of stack, then the GDT and the boot information, then the page tables. RSP points to the end of the stack. GDT: 0x08
code, 0x10 data, flat. Interrupts are off and registers zero unless a protocol defines otherwise.
All but 16-bit raw images find interrupt vectors, BIOS data area and extended BIOS data area where they lie free.
"""

from .entry import Entry, NeedsPc, bare_entry

__all__ = ["Entry", "NeedsPc", "bare_entry"]
