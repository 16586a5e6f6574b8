"""Files that are not guests: recognises them, and tells how to make a guest of them."""

from __future__ import annotations

from . import pe

_UNPACK = "{name} data: unpack it first ({tool}), then give what is in it"
_CONVERT = (
    "{name} disk image, not a raw one: convert it (qemu-img convert -O raw IMAGE IMAGE.raw), or leave GUEST "
    "out and let QEMU open it: -- -hda IMAGE"
)

# (offset, magic, sentence). Longer and surer magics come first.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"KDMV", _CONVERT.format(name="VMDK")),
    (0, b"# Disk DescriptorFile", _CONVERT.format(name="VMDK")),
    (0, b"vhdxfile", _CONVERT.format(name="VHDX")),
    (0, b"conectix", _CONVERT.format(name="VHD")),
    (0x40, b"\x7f\x10\xda\xbe", _CONVERT.format(name="VDI")),
    (0, b"\xfd7zXZ\0", _UNPACK.format(name="xz-compressed", tool="unxz")),
    (0, b"\x28\xb5\x2f\xfd", _UNPACK.format(name="zstd-compressed", tool="unzstd")),
    (0, b"\x1f\x8b", _UNPACK.format(name="gzip-compressed", tool="gunzip")),
    (0, b"BZh", _UNPACK.format(name="bzip2-compressed", tool="bunzip2")),
    (0, b"\x04\x22\x4d\x18", _UNPACK.format(name="lz4-compressed", tool="unlz4")),
    (0, b"\x02\x21\x4c\x18", _UNPACK.format(name="lz4-compressed", tool="unlz4")),
    (0, b"\x5d\0\0", _UNPACK.format(name="lzma-compressed", tool="unlzma")),
    (0, b"PK\x03\x04", _UNPACK.format(name="ZIP", tool="unzip")),
    (0, b"070701", "cpio archive: an initramfs is not a guest; give a kernel and this as --initrd"),
    (0, b"070702", "cpio archive: an initramfs is not a guest; give a kernel and this as --initrd"),
    (0, b"!<arch>\n", "static library or Debian package (ar archive): give the kernel inside it"),
    (257, b"ustar", "tar archive: unpack it first, then give what is in it"),
    (0, b"\xcf\xfa\xed\xfe", "Mach-O file: not a guest for a PC with a BIOS; link it as ELF"),
)


def name_it(head: bytes) -> str | None:
    """Return a sentence that names the kind of file and what to do; None: it is not one of these."""
    if (program := pe.find(head)) is not None:
        return pe.refusal(program)
    for offset, magic, sentence in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return sentence
    return None
