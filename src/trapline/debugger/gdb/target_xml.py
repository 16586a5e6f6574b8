"""What gdb is told about registers: target descriptions, and the layout of the packets that follow from them.

gdb takes one description at a time, and an architecture with it. A guest changes its mode, so there is one for each
size of code; gdb reads the one that fits when it connects, and again at `unset tdesc filename`.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from trapline.arch.registers import CR0, CR4, EFER, MXCSR, RFLAGS
from trapline.debugger.registers import Group, Register, find, group_of
from trapline.symbols import Names

_CORE: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_ORDER_64: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *(f"r{number}" for number in range(8, 16)),
)
_SELECTORS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_X87: Final = {
    "fctrl": "fcw",
    "fstat": "fsw",
    "ftag": "ftw",
    "fiseg": "fcs",
    "fioff": "fip",
    "foseg": "fds",
    "fooff": "fdp",
    "fop": "fop",
}
"""gdb's names, and those of `debugger.registers`."""
_SSE_TYPES: Final = (
    *(
        f'<vector id="v{count}{short}" type="{name}" count="{count}"/>'
        for count, short, name in (
            *((4, "f", "ieee_single"), (2, "d", "ieee_double")),
            *((16, "i8", "int8"), (8, "i16", "int16"), (4, "i32", "int32"), (2, "i64", "int64")),
        )
    ),
    '<union id="vec128">',
    *(
        f'<field name="{name}" type="{kind}"/>'
        for name, kind in (
            *(("v4_float", "v4f"), ("v2_double", "v2d"), ("v16_int8", "v16i8"), ("v8_int16", "v8i16")),
            *(("v4_int32", "v4i32"), ("v2_int64", "v2i64"), ("uint128", "uint128")),
        )
    ),
    "</union>",
)
"""As gdb's own descriptions have them: what `print $xmm0` shows."""
_TYPES: Final = {"rsp": "data_ptr", "rbp": "data_ptr"}
_BASES: Final = ("cs_base", "ss_base", "ds_base", "es_base", "fs_base", "gs_base", "kernel_gs_base")
_OWN: Final = (*("cr0", "cr2", "cr3", "cr4", "efer", "cpl"), *(row.name for row in group_of(Group.EXCEPTION)))
"""Registers that gdb has no names for. On x86 it lists all integers in `info registers`: these are few for that."""
_FLAGS: Final[Mapping[str, type]] = {"eflags": RFLAGS, "cr0": CR0, "cr4": CR4, "efer": EFER, "mxcsr": MXCSR}
"""Registers that gdb shows bit by bit, and what names the bits."""
_ARCHITECTURES: Final = {
    64: ("i386:x86-64", "i386"),
    32: ("i386", "i386:x86-64"),
    16: ("i8086", "i386:x86-64"),
}
"""gdb's name, and that of symbol files which it then takes too."""

PC: Final = "pc"
"""The linear address of the instruction, which gdb takes RIP for: breakpoints and disassembly use it."""
STALE: Final = "stale"
"""1 if another description fits the code that the guest executes now."""


class Row(NamedTuple):
    """A register as gdb knows it."""

    name: str
    bits: int
    """As packets have it: a multiple of 8."""
    type: str
    source: Register | str
    """Where its value comes from: a register of ours, PC, STALE."""


class Layout(NamedTuple):
    """A target description, with the registers in the order of its numbers."""

    bits: int
    """The size of code that gdb disassembles: 16, 32 or 64."""
    rows: tuple[Row, ...]
    together: tuple[Row, ...]
    """The first of them: those of the packet that gdb asks for at each stop. It asks for the others when it needs them,
    those of x87 and SSE, which the CPU has to be asked for."""
    xml: bytes


def symbols_bits(names: Names) -> int | None:
    """Return the width of the addresses in the first symbol file that tells: 32 or 64; None: there is none."""
    for file in names.files:
        try:
            with Path(file.name).open("rb") as opened:
                head = opened.read(5)
        except (OSError, ValueError):
            continue
        if head[:4] == b"\x7fELF":
            return 64 if head[4:] == b"\x02" else 32
        return 64  # a System.map or kallsyms: of a 64-bit kernel, unless the CPU says otherwise
    return None


def fitting(code_bits: int, symbols: int | None) -> int:
    """Return the description for a CPU that executes code of this size, with symbols of this width.

    gdb cuts addresses to the width of its architecture: with 64-bit symbols it is always the 64-bit one.
    """
    return 64 if symbols == 64 else code_bits


@cache
def layout(bits: int) -> Layout:
    """Return the layout for code of 16, 32 or 64 bits."""
    features = [
        ("org.gnu.gdb.i386.core", _core(bits)),
        ("org.gnu.gdb.i386.sse", _sse(bits)),
        *([("org.gnu.gdb.i386.segments", _rows(_BASES[4:6]))] if bits == 64 else []),
        ("org.trapline.cpu", _own(bits)),
    ]
    rows = sorted((row for _, rows in features for row in rows), key=_is_late)
    numbers = {row.name: number for number, row in enumerate(rows)}
    architecture, compatible = {64: ("i386:x86-64", "i386"), 32: ("i386", "i386:x86-64"), 16: ("i8086", "i386:x86-64")}[
        bits
    ]
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        f"<target><architecture>{architecture}</architecture><osabi>none</osabi><compatible>{compatible}</compatible>",
    ]
    for name, members in features:
        lines.append(f'<feature name="{name}">')
        lines += _SSE_TYPES if name == "org.gnu.gdb.i386.sse" else ()
        lines += (_flags(row) for row in members if row.name in _FLAGS)
        for row in members:
            form = f'bitsize="{row.bits}" type="{row.type}" regnum="{numbers[row.name]}"'
            lines.append(f'<reg name="{row.name}" {form}/>')
        lines.append("</feature>")
    together = tuple(row for row in rows if not _is_late(row))
    return Layout(bits, tuple(rows), together, "\n".join([*lines, "</target>"]).encode())


def _is_late(row: Row) -> bool:
    return isinstance(row.source, Register) and row.source.group in (Group.X87, Group.SSE)


def _core(bits: int) -> list[Row]:
    width, names = (64, _ORDER_64) if bits == 64 else (32, _CORE)
    rows = []
    for name in names:
        shown = name if bits == 64 else f"e{name[1:]}"
        rows.append(Row(shown, width, _TYPES.get(name, f"int{width}"), find(name)))
    rows.append(Row("rip" if bits == 64 else "eip", width, "code_ptr", PC))
    rows.append(Row("eflags", 32, "eflags_t", find("rflags")))
    rows += [Row(name, 32, "int32", find(name)) for name in _SELECTORS]
    rows += [Row(f"st{number}", 80, "i387_ext", find(f"st{number}")) for number in range(8)]
    rows += [Row(name, 32, "int", find(source)) for name, source in _X87.items()]
    return rows


def _sse(bits: int) -> list[Row]:
    names = [f"xmm{number}" for number in range(16 if bits == 64 else 8)]
    return [*(Row(name, 128, "vec128", find(name)) for name in names), Row("mxcsr", 32, "mxcsr_t", find("mxcsr"))]


def _own(bits: int) -> list[Row]:
    bases = tuple(name for name in _BASES if bits != 64 or name not in _BASES[4:6])
    rows = [Row("ip", 64, "int64", find("rip")), *_rows(bases), *_rows(_OWN)]
    return [*rows, Row(STALE, 8, "int8", STALE)]


def _rows(names: Iterable[str]) -> list[Row]:
    found = []
    for register in map(find, names):
        width = max(8, 1 << (register.bits - 1).bit_length())
        shown = f"{register.name}_t" if register.name in _FLAGS else f"int{width}"
        found.append(Row(register.name, width, shown, register))
    return found


def _flags(row: Row) -> str:
    """Return the type of a register whose bits have names."""
    named = vars(_FLAGS[row.name])
    single = {name: value for name, value in named.items() if isinstance(value, int) and value.bit_count() == 1}
    fields = (
        f'<field name="{name}" start="{place}" end="{place}"/>'
        for name, value in single.items()
        if (place := value.bit_length() - 1) < row.bits and name != "ALWAYS_ONE"
    )
    return f'<flags id="{row.name}_t" size="{row.bits // 8}">{"".join(fields)}</flags>'
