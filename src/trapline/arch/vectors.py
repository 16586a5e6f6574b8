"""The 32 exception vectors as rows of a table: what each is, where its error code comes from, and
whether a hypervisor may force its interception.

What differs between vectors is data here, so that one handler can serve them all.
"""

from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import NamedTuple


class Vector(IntEnum):
    """The exception vectors that are not reserved (APM vol. 2, 8.2)."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    CP = 21
    HV = 28
    VC = 29
    SX = 30

    @property
    def mnemonic(self) -> str:
        """As the manual prints it: "#PF"; an NMI has no number sign."""
        return VECTORS[self].mnemonic


class Kind(Enum):
    """Where the saved RIP points, and whether the program can be resumed."""

    FAULT = "fault"
    TRAP = "trap"
    ABORT = "abort"
    INTERRUPT = "interrupt"
    FAULT_OR_TRAP = "fault or trap"
    RESERVED = "reserved"


class Class(Enum):
    """What a second exception during delivery makes of it (APM 15.7.3)."""

    BENIGN = "benign"
    CONTRIBUTORY = "contributory"
    PAGE_FAULT = "page fault"
    DOUBLE_FAULT = "double fault"


class ErrorCode(Enum):
    """Where the error code to push comes from at an exception exit (APM 15.12)."""

    ABSENT = "none is pushed"
    EXITINFO1 = "EXITINFO1"
    ZERO = "always zero"


class VectorFacts(NamedTuple):
    """One row of the table."""

    vector: int
    mnemonic: str
    """As the manual prints it: "#PF"."""
    name: str
    kind: Kind
    cls: Class
    error_code: ErrorCode
    refused: str | None
    """Why its interception may not be forced, in one sentence; None: it may."""
    section: str
    """Of the APM, volume 2."""
    note: str | None = None

    @property
    def bit(self) -> int:
        """The bit of the vector in an exception mask."""
        return 1 << self.vector


_BENIGN, _CONTRIBUTORY = Class.BENIGN, Class.CONTRIBUTORY
_ABSENT, _INFO1, _ZERO = ErrorCode.ABSENT, ErrorCode.EXITINFO1, ErrorCode.ZERO


def _row(
    vector: Vector,
    name: str,
    kind: Kind,
    cls: Class,
    error_code: ErrorCode,
    *,
    refused: str | None = None,
    section: str = "15.12",
    note: str | None = None,
) -> VectorFacts:
    sign = "" if vector is Vector.NMI else "#"
    return VectorFacts(int(vector), sign + vector.name, name, kind, cls, error_code, refused, section, note)


def _reserved(
    vector: int, name: str = "reserved", refused: str = "The vector is reserved: no exception has it."
) -> VectorFacts:
    return VectorFacts(vector, f"vector {vector:#04x}", name, Kind.RESERVED, _BENIGN, _ABSENT, refused, "15.12")


VECTORS: tuple[VectorFacts, ...] = (
    _row(Vector.DE, "divide error", Kind.FAULT, _CONTRIBUTORY, _ABSENT),
    _row(
        Vector.DB,
        "debug",
        Kind.FAULT_OR_TRAP,
        _BENIGN,
        _ABSENT,
        note="DR6 and DR7 already hold what the handler is to see; ICEBP has an intercept of its own.",
    ),
    _row(
        Vector.NMI,
        "non-maskable interrupt",
        Kind.INTERRUPT,
        _BENIGN,
        _ABSENT,
        refused="SVM leaves the bit of vector 2 undefined: NMIs have an intercept of their own.",
    ),
    _row(
        Vector.BP,
        "breakpoint",
        Kind.TRAP,
        _BENIGN,
        _ABSENT,
        note="The exit finds RIP on the INT3; the handler must find it after.",
    ),
    _row(
        Vector.OF,
        "overflow",
        Kind.TRAP,
        _BENIGN,
        _ABSENT,
        note="The exit finds RIP on the INTO; the handler must find it after.",
    ),
    _row(Vector.BR, "bound range", Kind.FAULT, _BENIGN, _ABSENT),
    _row(Vector.UD, "invalid opcode", Kind.FAULT, _BENIGN, _ABSENT),
    _row(Vector.NM, "device not available", Kind.FAULT, _BENIGN, _ABSENT),
    _row(
        Vector.DF,
        "double fault",
        Kind.ABORT,
        Class.DOUBLE_FAULT,
        _ZERO,
        note="EXITINFO1 is undefined at the exit; the code that is pushed is always zero.",
    ),
    _reserved(9, "coprocessor segment overrun", "SVM leaves the bit of vector 9 undefined: no AMD64 CPU raises it."),
    _row(
        Vector.TS,
        "invalid TSS",
        Kind.FAULT,
        _CONTRIBUTORY,
        _INFO1,
        note="The manual does not promise the error code: a processor declares whether it supplies it.",
    ),
    _row(Vector.NP, "segment not present", Kind.FAULT, _CONTRIBUTORY, _INFO1),
    _row(Vector.SS, "stack", Kind.FAULT, _CONTRIBUTORY, _INFO1),
    _row(Vector.GP, "general protection", Kind.FAULT, _CONTRIBUTORY, _INFO1),
    _row(
        Vector.PF,
        "page fault",
        Kind.FAULT,
        Class.PAGE_FAULT,
        _INFO1,
        note="EXITINFO2 is the faulting address; CR2 is not yet written.",
    ),
    _reserved(15),
    _row(Vector.MF, "x87 floating point", Kind.FAULT, _BENIGN, _ABSENT),
    _row(Vector.AC, "alignment check", Kind.FAULT, _BENIGN, _INFO1),
    _row(
        Vector.MC,
        "machine check",
        Kind.ABORT,
        _BENIGN,
        _ABSENT,
        refused="A machine check belongs to the owner of the hardware, and RIP may be meaningless.",
    ),
    _row(Vector.XM, "SIMD floating point", Kind.FAULT, _BENIGN, _ABSENT, note="The APM writes #XF."),
    _reserved(20),
    _row(Vector.CP, "control protection", Kind.FAULT, _CONTRIBUTORY, _INFO1),
    *(_reserved(vector) for vector in range(22, 28)),
    _row(
        Vector.HV,
        "hypervisor injection",
        Kind.INTERRUPT,
        _BENIGN,
        _ABSENT,
        refused="Only a hypervisor injects #HV, into SEV-SNP guests: hardware never raises it.",
        section="15.36",
    ),
    _row(
        Vector.VC,
        "VMM communication",
        Kind.FAULT,
        _CONTRIBUTORY,
        _INFO1,
        refused="#VC exists in SEV-ES guests only, and the hypervisor must not intercept it there.",
        section="15.35",
    ),
    _row(
        Vector.SX,
        "security",
        Kind.FAULT,
        _CONTRIBUTORY,
        _INFO1,
        refused="#SX is how a hypervisor consumes a redirected INIT: it is not the guest's exception.",
        section="15.28",
    ),
    _reserved(31),
)


def bit(vector: int) -> int:
    """Return the mask with the bit of `vector` alone."""
    return 1 << vector


def bits(mask: int) -> Iterator[int]:
    """Walk the set bits of a mask, lowest vector first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def mnemonic(vector: int) -> str:
    """Return "#PF" for a named exception, "vector 0x20" for anything else."""
    return VECTORS[vector].mnemonic if 0 <= vector < len(VECTORS) else f"vector {vector:#04x}"


# Plain ints, because they are tested at every exit.
FORCEABLE: int = sum(row.bit for row in VECTORS if row.refused is None)
WITH_ERROR_CODE: int = sum(row.bit for row in VECTORS if row.error_code is not ErrorCode.ABSENT)
SOFTWARE_EXCEPTIONS: int = 1 << Vector.BP | 1 << Vector.OF
"""Those that an instruction asks for, INT3 and INTO; their frames hold the RIP after it (APM 8.2.4, 8.2.5)."""
FAULTS: int = sum(row.bit for row in VECTORS if row.kind is Kind.FAULT)
# Only those a guest can raise under us: #VC and #SX are contributory too, but never forced.
CONTRIBUTORY: int = FORCEABLE & sum(row.bit for row in VECTORS if row.cls is Class.CONTRIBUTORY)
