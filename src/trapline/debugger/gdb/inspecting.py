"""Packets that read and write a stopped guest: registers, memory, threads, and its exception."""

import struct
from typing import Final

from trapline.arch.events import encode
from trapline.asm.disassembler import SYNTAXES, disassemble
from trapline.machine.linear import LONGEST

from . import target_xml
from .packets import LARGEST, escape, unescape
from .reading import read_all, read_memory, read_register, write_all, write_memory, write_register
from .state import BAD, OK, UNSUPPORTED, Queries, State, numbers, part_of, sliced

_MOST: Final = LARGEST // 2 - 8
"""Bytes of memory in a packet, of which each may need two."""
_SIGINFO: Final = struct.Struct("<IIIIQQ")
"""Vector, error code, which of the others are valid (1, 2, 4), 0, faulting address, EXITINTINFO."""


def _features(state: State, rest: str) -> bytes:
    """Return a part of the description; its first part begins a new one."""
    annex, offset, length = part_of(rest)
    if annex != "target.xml":
        return b"E00"
    if offset == 0:
        state.layout = target_xml.layout(state.fitting)
    return sliced(state.layout.xml, offset, length)


def _siginfo(state: State, rest: str) -> bytes:
    _, offset, length = part_of(rest)
    exception = state.target.exception
    if exception is None:
        return BAD
    code, address, vectoring = exception.error_code, exception.address, exception.vectoring
    valid = (code is not None) | (address is not None) << 1 | (vectoring is not None) << 2
    event = 0 if vectoring is None else encode(vectoring)
    return sliced(_SIGINFO.pack(exception.vector, code or 0, valid, 0, address or 0, event), offset, length)


def _row(state: State, number: str) -> target_xml.Row:
    (place,) = numbers(number, 1)
    rows = state.layout.rows
    if place >= len(rows):
        raise ValueError("no register has that number")
    return rows[place]


def _read_registers(state: State, rest: str) -> bytes:
    return read_all(state.target, state.layout, stale=state.is_stale)


def _write_registers(state: State, rest: str) -> bytes:
    write_all(
        state.target, state.layout.together, bytes.fromhex(rest.replace("x", "0"))
    )  # what is not available is kept
    return OK


def _read_register(state: State, rest: str) -> bytes:
    return read_register(state.target, _row(state, rest), stale=state.is_stale)


def _write_register(state: State, rest: str) -> bytes:
    number, _, value = rest.partition("=")
    write_register(state.target, _row(state, number), bytes.fromhex(value))
    return OK


def _read(state: State, rest: str) -> bytes:
    address, size = numbers(rest, 2)
    return read_memory(state.target, address, min(size, _MOST), physical=state.monitor.physical)


def _read_memory(state: State, rest: str) -> bytes:
    return _read(state, rest).hex().encode()


def _read_binary(state: State, rest: str) -> bytes:
    return b"b" + escape(_read(state, rest))


def _write(state: State, place: str, data: bytes) -> bytes:
    address, size = numbers(place, 2)
    if size != len(data):
        return BAD
    write_memory(state.target, address, data, physical=state.monitor.physical)
    return OK


def _write_memory(state: State, rest: str) -> bytes:
    place, _, digits = rest.partition(":")
    return _write(state, place, bytes.fromhex(digits))


def _write_binary(state: State, rest: str) -> bytes:
    place, _, data = rest.partition(":")
    return _write(state, place, unescape(data.encode("latin-1")))


def _get_physical(state: State, rest: str) -> bytes:
    return b"1" if state.monitor.physical else b"0"


def _set_physical(state: State, rest: str) -> bytes:
    state.monitor.physical = rest == "1"
    return OK


def _disassemble(state: State, rest: str) -> bytes:
    """Return the length and the text of an instruction; nothing where gdb's own disassembler is right."""
    place, _, syntax = rest.partition(",")
    (address,) = numbers(place, 1)
    cpu = state.target.cpu
    if state.layout.bits == cpu.bits or syntax not in SYNTAXES:
        return UNSUPPORTED
    code = read_memory(state.target, address, LONGEST, physical=False)
    line = disassemble(code, address, cpu.bits, syntax=syntax, count=1)[0]
    return b"%x;%b" % (len(line.data), line.text.encode().hex().encode())


# Threads are the CPUs of the guest, numbered from 1.


def _threads(state: State, rest: str) -> bytes:
    return b"m" + b",".join(b"%x" % (cpu.number + 1) for cpu in state.target.machine.cpus)


def _no_more_threads(state: State, rest: str) -> bytes:
    return b"l"


def _current_thread(state: State, rest: str) -> bytes:
    if rest:
        return UNSUPPORTED  # qCRC
    return b"QC%x" % (state.target.cpu.number + 1)


def _is_thread(state: State, rest: str) -> bytes:
    return OK if 1 <= int(rest, 16) <= len(state.target.machine.cpus) else BAD


def _select_thread(state: State, rest: str) -> bytes:
    """Select the CPU for what follows: g for registers and memory, c for what goes on."""
    number = int(rest[1:], 16)
    if rest[:1] not in ("g", "c") or not -1 <= number <= len(state.target.machine.cpus):
        return BAD
    if rest[0] == "g":
        state.target.select(number - 1 if number > 0 else None)
    return OK


def _about_thread(state: State, rest: str) -> bytes:
    number, cpus = int(rest, 16), state.target.machine.cpus
    if not 1 <= number <= len(cpus):
        return BAD
    cpu = cpus[number - 1]
    does = ", waits for a startup IPI" if cpu.vcpu.waits else ", in HLT" if cpu.vcpu.processor.halted else ""
    return f"CPU {cpu.number}, {cpu.bits}-bit code, CPL {cpu.registers.cpl}{does}".encode().hex().encode()


QUERIES: Final[Queries] = {
    "qXfer:features:read:": _features,
    "qXfer:siginfo:read:": _siginfo,
    "qfThreadInfo": _threads,
    "qsThreadInfo": _no_more_threads,
    "qThreadExtraInfo,": _about_thread,
    "qC": _current_thread,
    "qTrapline.Disassemble:": _disassemble,
    "qqemu.PhyMemMode": _get_physical,
    "Qqemu.PhyMemMode:": _set_physical,
    "T": _is_thread,
    "H": _select_thread,
    "g": _read_registers,
    "G": _write_registers,
    "p": _read_register,
    "P": _write_register,
    "m": _read_memory,
    "M": _write_memory,
    "x": _read_binary,
    "X": _write_binary,
}
"""By how the packet begins; a name that begins with another one comes before it."""
