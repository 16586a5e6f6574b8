"""Whole files of each kind, made by code."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

import trapline
from trapline.trace.files import open_trace
from trapline.trace.files.writer import FORMATS, LINES, Format, Note

from . import images, symbol_files

_PROGRAM: Final = """
static int twice(int x) { return x + x; }
namespace pages { struct Table { int walk(long); }; int Table::walk(long x) { return twice((int)x); } }
int data = 5;
extern "C" int main(void) { pages::Table table; for (int i = 0; i < data; i++) table.walk(i); return 0; }
"""
_COMPILED: Final = (
    ("-gdwarf-5",), ("-gdwarf-4", "-gz=zlib"), ("-gdwarf-5", "-O2", "-ffunction-sections"), ("-m32", "-gdwarf-2"),
)  # fmt: skip
_SAMPLES: Final = ("pf", "df", "bad-selector", "double-fault", "no-idt", "non-canonical-handler", "stack-overflow")
_LOGGED: Final = """\
CPU Reset (CPU 0)
check_exception old: 0xffffffff new 0x6
     0: v=06 e=0000 i=0 cpl=0 IP=0008:0000000000101305 pc=0000000000101305 SP=0010:0000000000112000 env->regs[R_EAX]=0
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RIP=0000000000101305 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CR0=80000011 CR2=0000000000000000 CR3=0000000000102000 CR4=00000020
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000500
Servicing hardware INT=0x08
     1: v=08 e=0000 i=0 cpl=3 IP=0033:00007f0000101305 pc=00007f0000101305 SP=002b:00007ffe00112000 env->regs[R_EAX]=0
check_exception old: 0xffffffff new 0xe
     2: v=0e e=0002 i=0 cpl=3 IP=0033:0000000000101305 pc=0000000000101305 SP=002b:0000000000112000 CR2=00000000deadbeef
check_exception old: 0xe new 0xd
     3: v=08 e=0000 i=0 cpl=0 IP=0008:0000000000101305 pc=0000000000101305 SP=0010:0000000000112000 env->regs[R_EAX]=0
check_exception old: 0x8 new 0xd
Triple fault
"""


def _images() -> list[bytes]:
    header = images.multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020)
    return [
        images.bzimage(),
        images.elf(32, content=images.multiboot_header() + bytes(200), notes=images.note()),
        images.elf(64, notes=images.note()),
        images.elf(64, content=bytes(800), more=0x1000),
        images.elf(64, content=bytes(800), notes=images.note(descriptor=struct.pack("<Q", 0x100040))),
        header + bytes(600),
        images.iso(),
        images.disk(1 << 14, partitions=[(0, 0xEE, 1, 2)], gpt=True),
        images.disk(1474560 // 90),
        images.efi_program(),
        *_compiled(),
    ]


def _symbols() -> list[bytes]:
    lines = symbol_files.line_table(200)
    info = b"".join(symbol_files.unit(number) for number in range(20))
    return [
        symbol_files.with_lines(info, symbol_files.ABBREVIATION, lines),
        symbol_files.named(
            symbol_files.compressed(".debug_info", len(info), info),
            symbol_files.compressed(".debug_line", len(lines), lines),
            symbol_files.debug(".debug_abbrev", symbol_files.ABBREVIATION),
        ),
        symbol_files.with_symbols([(1, symbol_files.START + 8 * n, 64) for n in range(64)], b"\0_Z1fv\0_RNvC1a1b\0"),
        *_compiled(),
    ]


def _maps() -> list[bytes]:
    rows = [f"{0xFFFFFFFF81000000 + 64 * number:016x} {'TtDdWwAB'[number % 8]} name_{number}" for number in range(60)]
    modules = [f"{0xFFFFFFFFC0000000 + 64 * number:016x} t inside_{number}\t[module]" for number in range(20)]
    return ["\n".join([*rows, ""]).encode(), "\n".join([*rows, *modules, ""]).encode()]


def _runs() -> list[bytes]:
    """Return the stored runs of samples: records with evidence."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for sample in _SAMPLES:
            path = Path(folder) / sample
            trapline.run(f"sample:{sample}", processor="unicorn", timeout=60, output=path)
            found.append(path.read_bytes())
    return found


def _converted(form: Format) -> list[bytes]:
    """Return the stored runs of samples in another format, of Parquet also what a killed run leaves."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        plain, path = Path(folder) / "run.jsonl", Path(folder) / "run"
        for content in originals("runs"):
            plain.write_bytes(content)
            with open_trace(plain) as trace, path.open("wb") as file:
                writer = form.make(file)
                writer.begin(trace.metadata)
                for columns, notes in trace.pieces():
                    half = columns.size // 2
                    writer.write(columns.part(0, half), [note for note in notes if note.place < half])
                    writer.flush()
                    rest = [Note(note.place - half, note.line) for note in notes if note.place >= half]
                    writer.write(columns.part(half, columns.size), rest)
                writer.close()
            found.append(path.read_bytes())
    return found


def _evidence() -> list[bytes]:
    """Return the evidence of samples alone."""
    lines = [b"".join(line for line in run.splitlines(True) if b'"evidence"' in line) for run in originals("runs")]
    return [line for line in lines if line]


def _logs() -> list[bytes]:
    return [_LOGGED.encode(), _LOGGED.encode() * 8]


@cache
def _compiled() -> tuple[bytes, ...]:
    """Return programs by the C++ compiler, with DWARF; none where it is not installed."""
    if shutil.which("g++") is None:
        return ()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "source.cc").write_text(_PROGRAM)
        for options in _COMPILED:
            command = ["g++", "-nostdlib", "-static", "-ffreestanding", *options, "source.cc", "-o", "program"]
            if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0:
                found.append((Path(folder) / "program").read_bytes())
    return tuple(found)


_KINDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "images": _images,
    "symbols": _symbols,
    "maps": _maps,
    "runs": _runs,
    "evidence": _evidence,
    **{form.suffix.removeprefix("."): partial(_converted, form) for form in FORMATS if form is not LINES},
    "logs": _logs,
}
KINDS: Final = tuple(_KINDS)


@cache
def originals(kind: str) -> Sequence[bytes]:
    """Return the whole files of a kind."""
    return _KINDS[kind]()
