"""ELF files with sections, built from their fields: what no linker writes."""

import struct
import zlib

CODE, TABLE, STRINGS, DATA = 1, 2, 3, 1
START = 0x10_0000


def elf(sections):
    """Return a file of sections: (name, type, flags, address, content or (size, offset), link)."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    rows, content = [bytes(64)], b""
    for name, kind, flags, address, data, link in [*sections, (".shstrtab", STRINGS, 0, 0, names, 0)]:
        size, offset = data if isinstance(data, tuple) else (len(data), 64 + len(content))
        content += b"" if isinstance(data, tuple) else data
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        rows.append(
            struct.pack("<IIQQQQIIQQ", at, kind, flags, address, offset, size, link, 0, 1, 24 * (kind == TABLE))
        )
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64 + len(content), 0, 64, 56, 0, 64, len(rows), len(rows) - 1
    )
    return b"\x7fELF\x02\x01\x01" + bytes(9) + header + content + b"".join(rows)


def with_symbols(symbols, strings, *more):
    """Return a file with functions: (offset of the name, address, size)."""
    table = bytes(24) + b"".join(struct.pack("<IBBHQQ", at, 0x12, 0, 1, start, size) for at, start, size in symbols)
    return elf(
        [
            (".text", CODE, 6, START, bytes(0x1000), 0),
            (".symtab", TABLE, 0, 0, table, 3),
            (".strtab", STRINGS, 0, 0, strings, 0),
            *more,
        ]
    )


def compressed(name, size, data):
    """Return a compressed section; `size` is what its header says."""
    return name, DATA, 0x800, 0, struct.pack("<IIQQ", 1, 0, size, 1) + zlib.compress(data, 9), 0


def debug(name, data):
    """Return a section with debug information."""
    return name, DATA, 0, 0, data, 0
