"""Exceptions as `qemu -d int,cpu_reset` logs them, with what a record has: not the other segments, CR2, DR0 to DR7.

The formats are those of QEMU 7.2: target/i386/tcg/seg_helper.c (do_interrupt_all), excp_helper.c (check_exception) and
cpu-dump.c. `trapline import qemu-int` reads them.
"""

from collections.abc import Iterator
from typing import Final

from trapline.arch.events import EventType
from trapline.arch.registers import EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.machine.record import GENERAL
from trapline.trace.exception_record import Outcome
from trapline.trace.questions.rows import Row

_NOTHING: Final = 0xFFFF_FFFF
_TOLD: Final = frozenset(
    {Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF, Vector.DF},
)
"""Of these QEMU tells that they are under delivery: contributory exceptions, page faults and double faults."""
_FLAGS: Final = (
    *((RFLAGS.DF, "D"), (RFLAGS.OF, "O"), (RFLAGS.SF, "S"), (RFLAGS.ZF, "Z")),
    *((RFLAGS.AF, "A"), (RFLAGS.PF, "P"), (RFLAGS.CF, "C")),
)
_ORDER: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_IN_A_LINE: Final = 4


def block(row: Row) -> Iterator[str]:
    """Yield the lines of an exception."""
    soft = row.injected is not None and row.injected.type == EventType.SOFT
    if not (row.synthesized or soft):
        under = row.vectoring
        old = under.vector if under is not None and under.vector in _TOLD else _NOTHING
        yield f"check_exception old: {old:#x} new {row.vector:#x}"
    if row.outcome is Outcome.SHUTDOWN:
        yield "Triple fault"
    if row.outcome in (Outcome.SHUTDOWN, Outcome.COMBINED) or row.cpl is None or row.rip is None:
        return
    tail = f"CR2={row.address:016x}" if row.address is not None else f"env->regs[R_EAX]={_general(row, 'rax'):016x}"
    yield (
        f"{row.seq:6}: v={row.vector:02x} e={row.error_code or 0:04x} i={soft:d} cpl={row.cpl}"
        f" IP={row.cs or 0:04x}:{row.rip:016x} pc={row.linear_rip or row.rip:016x}"
        f" SP={row.ss or 0:04x}:{row.rsp or 0:016x} {tail}"
    )
    yield from _state(row, row.rip)


def _state(row: Row, rip: int) -> Iterator[str]:
    long = row.efer is None or row.efer & EFER.LMA
    digits = 16 if long else 8
    if row.registers is not None:
        names = _ORDER if long else _ORDER[:8]
        texts = [_register(row, name, digits) for name in names]
        for start in range(0, len(texts), _IN_A_LINE):
            yield " ".join(texts[start : start + _IN_A_LINE])
    flags = row.rflags or 0
    shown = "".join(letter if flags & bit else "-" for bit, letter in _FLAGS)
    pointer, name = ("RIP", "RFL") if long else ("EIP", "EFL")
    yield f"{pointer}={rip:0{digits}x} {name}={flags:08x} [{shown}] CPL={row.cpl}"
    yield f"CS ={row.cs or 0:04x}" + ("" if row.cs_base is None else f" {row.cs_base:0{digits}x}")
    yield f"SS ={row.ss or 0:04x}"
    cr2 = "" if row.address is None else f" CR2={row.address:0{digits}x}"
    if row.cr0 is not None and row.cr3 is not None and row.cr4 is not None:
        yield f"CR0={row.cr0:08x}{cr2} CR3={row.cr3:0{digits}x} CR4={row.cr4:08x}"
    if row.dr6 is not None:
        yield f"DR6={row.dr6:0{digits}x}"
    if row.efer is not None:
        yield f"EFER={row.efer & ~EFER.SVME:016x}"


def _register(row: Row, name: str, digits: int) -> str:
    value = (row.rsp or 0) if name == "rsp" else _general(row, name)
    if digits == 8:
        return f"E{name[1:].upper()}={value & 0xFFFF_FFFF:08x}"
    return f"{name.upper():<3}={value:016x}"


def _general(row: Row, name: str) -> int:
    return 0 if row.registers is None else row.registers[GENERAL.index(name)]
