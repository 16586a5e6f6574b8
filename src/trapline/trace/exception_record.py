"""One recorded exception as a value, and as a line of text."""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Final, NamedTuple, Protocol, TypeAlias

from trapline.arch.error_codes import describe_error_code
from trapline.arch.events import Event, decode
from trapline.arch.vectors import Vector, mnemonic
from trapline.errors import TraplineError
from trapline.machine.record import PACKED, RecordFlags
from trapline.symbols import Symbol

Lookup: TypeAlias = Callable[[int], Symbol | None]
"""Names a linear address; None: no symbol covers it."""


class Outcome(Enum):
    """What became of an exception."""

    FORWARDED = "forwarded"
    """Given to the guest as it was."""
    COMBINED = "combined"
    """It and the event under delivery became a #DF (APM vol. 2, 15.7.3)."""
    SHUTDOWN = "shutdown"
    """It became a shutdown: a triple fault."""
    DISCARDED = "discarded"
    """The guest never saw it: an observer decided so."""
    INJECTED = "injected"
    """The guest got another exception instead: an observer decided so."""
    UNDELIVERED = "undelivered"
    """The record does not tell."""


_OUTCOMES: Final = (
    (RecordFlags.SHUTDOWN, Outcome.SHUTDOWN),
    (RecordFlags.COMBINED, Outcome.COMBINED),
    (RecordFlags.DISCARDED, Outcome.DISCARDED),
    (RecordFlags.REPLACED, Outcome.INJECTED),
    (RecordFlags.FORWARDED, Outcome.FORWARDED),
)
"""The first flag that is set decides."""


@cache
def outcome_of(flags: int) -> Outcome:
    """Return what became of an exception, from `Record.flags`."""
    return next((outcome for flag, outcome in _OUTCOMES if flags & flag), Outcome.UNDELIVERED)


def linear_rip(rip: int, cs_base: int) -> int:
    """Return the linear address of an instruction; outside 64-bit code it has 32 bits (APM vol. 2, 4.5.3).

    A record does not hold CS.L: a RIP above 4 GiB can only be one of 64-bit code, where the base counts as 0.
    """
    return rip if rip >> 32 else cs_base + rip & 0xFFFF_FFFF


class GeneralRegisters(NamedTuple):
    """The general registers but for RSP, in the order in which instructions number them."""

    rax: int
    rcx: int
    rdx: int
    rbx: int
    rbp: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int


class ExceptionRecord(NamedTuple):
    """One recorded exception: the guest's state at the #VMEXIT, before it saw the exception.

    `str()` gives one line: what, where, why, and what was being delivered.
    """

    seq: int
    """Number of the record in its run, from 0."""
    vector: Vector
    """Which exception."""
    error_code: int | None
    """The error code that it pushes; None: it pushes none."""
    address: int | None
    """The faulting linear address of a #PF; None for every other exception."""
    rip: int
    """RIP of the instruction; for #BP and #OF too."""
    linear_rip: int
    """The linear address of the instruction: RIP with the base of CS."""
    cs: int
    """The selector of the code segment."""
    cs_base: int
    """The base of the code segment."""
    cpl: int
    """The privilege level at which it was raised."""
    rsp: int
    """The stack pointer before the delivery."""
    ss: int
    """The selector of the stack segment."""
    rflags: int
    """The flags before the delivery."""
    cr0: int
    """CR0."""
    cr3: int
    """The physical address of the page tables, with PCID or flags."""
    cr4: int
    """CR4."""
    efer: int
    """EFER as the VMCB has it, with SVME."""
    dr6: int
    """The debug status."""
    tsc: int
    """The time stamp counter at the #VMEXIT."""
    vcpu: int
    """Number of the virtual CPU."""
    vectoring: Event | None
    """The event that was being delivered when it was raised (EXITINTINFO); None: none was."""
    outcome: Outcome
    """What became of it."""
    injected: Event | None
    """The event that the guest got for it (EVENTINJ); None: none."""
    synthesized: bool
    """Whether the hypervisor raised it, as the #DF that two exceptions combine to."""
    symbol: Symbol | None
    """The name of `linear_rip`, where symbols know it."""
    registers: GeneralRegisters
    """The other general registers."""

    def __str__(self) -> str:
        return line_of(self)


class RaisedException(Protocol):
    """What was raised, and where; None: it is missing, or unknown."""

    @property
    def vector(self) -> int:
        """Which exception."""

    @property
    def error_code(self) -> int | None:
        """The error code that it pushes."""

    @property
    def address(self) -> int | None:
        """The faulting linear address of a #PF."""

    @property
    def rip(self) -> int | None:
        """RIP of the instruction."""

    @property
    def cpl(self) -> int | None:
        """The privilege level at which it was raised."""

    @property
    def vectoring(self) -> Event | None:
        """The event that was being delivered."""

    @property
    def symbol(self) -> object:
        """The name of the instruction; `str` gives the text."""


class Recorded(RaisedException, Protocol):
    """What a line tells of an exception."""

    @property
    def cs(self) -> int | None:
        """The selector of the code segment."""

    @property
    def outcome(self) -> Outcome | None:
        """What became of it."""

    @property
    def injected(self) -> Event | None:
        """The event that the guest got for it."""

    @property
    def synthesized(self) -> bool:
        """Whether the hypervisor raised it."""

    @property
    def vcpu(self) -> int | None:
        """The number of the virtual CPU."""


def line_of(record: Recorded) -> str:
    """Return an exception in a line: what, where, why, and what was being delivered; the CPU if it is not CPU 0."""
    parts = [f"{mnemonic(record.vector):<4}", *([f"cpu {record.vcpu}"] if record.vcpu else ())]
    if record.cpl is not None:
        parts.append(f"cpl {record.cpl}")
    if record.cs is not None and record.rip is not None:
        parts.append(f"{record.cs:04x}:{record.rip:016x}")
    if record.symbol is not None:
        parts.append(str(record.symbol))
    if record.address is not None:
        parts.append(f"address {record.address:#x}")
    if record.error_code is not None:
        parts.append(f"error {record.error_code:#x}: {_describe_error_code(record)}")
    if record.vectoring is not None:
        parts.append(f"while delivering {record.vectoring}")
    elif record.synthesized and record.vector == Vector.DF:
        parts.append("synthesized from the two above")
    if record.outcome is Outcome.INJECTED:
        parts.append(f"-> {record.injected}")
    elif (end := _ENDS.get(record.outcome)) is not None:
        parts.append(end)
    return "  ".join(parts)


_ENDS: Final[Mapping[Outcome | None, str]] = {
    Outcome.COMBINED: "-> #DF",
    Outcome.SHUTDOWN: "-> shutdown",
    Outcome.DISCARDED: "-> discarded",
}
_IDT: Final = 1 << 1
"""In a selector error code: it names a gate of the IDT (APM vol. 2, 8.4.1)."""


def _describe_error_code(record: Recorded) -> str:
    # QEMU 7.2 counts the 16-byte gates of long mode in eights, so the number in the code is not to be trusted; the
    # event whose delivery met the gate is.
    code, vectoring = record.error_code or 0, record.vectoring
    if vectoring is not None and code & _IDT and Vector.TS <= record.vector <= Vector.GP:
        return f"the gate of {mnemonic(vectoring.vector)}"
    return describe_error_code(record.vector, code)


_VECTORS: Final = {int(vector): vector for vector in Vector}


def unpack_records(data: bytes | memoryview) -> Iterator[tuple[int, ...]]:
    """Yield the fields of each of whole records, in the order of `machine.record.ORDER`."""
    return PACKED.iter_unpack(data)


def decode_record(data: bytes | memoryview, place: int, seq: int, lookup: Lookup | None = None) -> ExceptionRecord:
    """Return the record at byte `place` of stored records; `seq` is its number, `lookup` names its instruction.

    Raises TraplineError where the vector is a reserved one: no processor writes such a record.
    """
    (tsc, vector, cpl, flags, error_code, exit_int_info, rip, rsp, rflags, cr3, address,
     cs, ss, vcpu, cs_base, cr0, cr4, efer, dr6, event, *general) = PACKED.unpack_from(data, place)  # fmt: skip
    if vector not in _VECTORS:
        raise TraplineError(f"record {seq} is damaged: vector {vector} is reserved, no exception has it")
    linear = linear_rip(rip, cs_base)
    return ExceptionRecord(
        seq,
        _VECTORS[vector],
        error_code if flags & RecordFlags.HAS_ERROR_CODE else None,
        address if flags & RecordFlags.HAS_ADDRESS else None,
        rip,
        linear,
        cs,
        cs_base,
        cpl,
        rsp,
        ss,
        rflags,
        cr0,
        cr3,
        cr4,
        efer,
        dr6,
        tsc,
        vcpu,
        decode(exit_int_info),
        outcome_of(flags),
        decode(event),
        bool(flags & RecordFlags.SYNTHESIZED),
        None if lookup is None else lookup(linear),
        GeneralRegisters(*general),
    )
