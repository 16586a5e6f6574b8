"""Known defects of guests and their loaders."""

from typing import Final

from tools.defect import Defect

from .reasons import LOADING

_GUESTS: Final = "src/trapline/guests"
_BOOT_TESTS: Final = ("tests/guests/test_boot.py",)
_RECOGNISE_TESTS: Final = ("tests/guests/test_recognise.py",)

DEFECTS: Final = (
    Defect("59", "a disk with GRUB's core image taken for a kernel", f"{_GUESTS}/recognise.py",
           "if media.boot_signature_present(head):",
           "if media.boot_signature_present(head) and not multiboot.find(head):", LOADING, _RECOGNISE_TESTS),
    Defect("60", "a multiboot header without its checksum", f"{_GUESTS}/formats/multiboot.py",
           "if magic == MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:", "if magic == MAGIC:", LOADING,
           _RECOGNISE_TESTS),
    Defect("61", "a kernel entered at its virtual address", f"{_GUESTS}/formats/elf.py",
           "return self.virtual_entry - segment.virtual + segment.address", "return self.virtual_entry", LOADING,
           _RECOGNISE_TESTS),
    Defect("62", "a PVH note missed after a padded one", f"{_GUESTS}/formats/elf.py",
           "at = start + -(-descriptor_size // pad) * pad", "at = start + descriptor_size", LOADING, _RECOGNISE_TESTS),
    Defect("63", "a kernel's bss not cleared", f"{_GUESTS}/boot/multiboot.py",
           "content[start : start + size], bss_end - header.load_address)", "content[start : start + size])", LOADING,
           _BOOT_TESTS),
    Defect("64", "the memory above 1 MiB counted from 0", f"{_GUESTS}/boot/multiboot.py", "ram.upper_size >> 10,",
           "ram.size >> 10,", LOADING, _BOOT_TESTS),
    Defect("65", "what is loaded overlaps what was loaded before", f"{_GUESTS}/boot/ram.py",
           "if gpa < taken_end and start < end:", "if start <= gpa < taken_end:", LOADING, _BOOT_TESTS),
    Defect("66", "IRQ 8 to 15 not ended at the second 8259", f"{_GUESTS}/boot/bios_data.py",
           "(0x70, _END_SLAVE)", "(0x70, _END_MASTER)", LOADING, _BOOT_TESTS),
)  # fmt: skip
