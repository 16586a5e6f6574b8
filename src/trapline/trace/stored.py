"""The lines of a file that `run -o` wrote, each checked for the types, ranges and sizes of its fields.

The classes are the schema: docs/trace-format.md describes the same fields.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, BinaryIO, Final, Literal, TypeAlias, TypeVar

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType, ValidationError
from msgspec.json import Decoder, encode

from trapline.arch.bits import M64
from trapline.errors import UsageError

LONGEST: Final = 1 << 20
"""Bytes of a line; the longest evidence that was seen has 60 KiB."""

_HEX: Final = r"\A0x[0-9a-f]{1,16}\Z"
Hex = Annotated[str, Meta(pattern=_HEX)]
_U8 = Annotated[int, Meta(ge=0, le=0xFF)]
_U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
Frequency = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
Mask = _U32
"""A bit for each exception."""
_Vector = Annotated[int, Meta(ge=0, le=31)]
_Name = Annotated[str, Meta(max_length=1 << 16)]
_Path = Annotated[str, Meta(max_length=64)]
"""The path of a field of a structure."""
_Function = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,8}\.[0-9a-f]{1,8}\Z")]
"""Function and subfunction of CPUID."""
_Answer = Annotated[list[Hex], Meta(min_length=4, max_length=4)]
"""EAX, EBX, ECX and EDX."""
_S = TypeVar("_S", bound=Struct)


class RecordedEvent(Struct, gc=False):
    """An event of a record; its type is a name, or the number of a reserved type."""

    vector: _U8
    type: Literal["intr", "1", "nmi", "exception", "soft", "5", "6", "7"]
    error_code: _U32 | None


class StoredRecord(Struct):
    """A record. Those of an imported log lack fields."""

    seq: Annotated[int, Meta(ge=0)]
    vector: _Vector
    name: _Name
    tsc: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    vcpu: _U32 | UnsetType = UNSET
    error_code: _U32 | UnsetType | None = UNSET
    address: Hex | UnsetType | None = UNSET
    cpl: Annotated[int, Meta(ge=0, le=3)] | UnsetType = UNSET
    cs: Hex | UnsetType = UNSET
    rip: Hex | UnsetType = UNSET
    ss: Hex | UnsetType = UNSET
    rsp: Hex | UnsetType = UNSET
    rflags: Hex | UnsetType = UNSET
    cr0: Hex | UnsetType = UNSET
    cr3: Hex | UnsetType = UNSET
    cr4: Hex | UnsetType = UNSET
    efer: Hex | UnsetType = UNSET
    dr6: Hex | UnsetType = UNSET
    vectoring: RecordedEvent | UnsetType | None = UNSET
    outcome: Literal["forwarded", "combined", "shutdown", "discarded", "injected", "undelivered"] | UnsetType = UNSET
    injected: RecordedEvent | UnsetType | None = UNSET
    symbol: _Name | UnsetType = UNSET
    source: _Name | UnsetType = UNSET
    cs_base: Hex | UnsetType = UNSET
    synthesized: bool | UnsetType = UNSET
    rax: Hex | UnsetType = UNSET
    rcx: Hex | UnsetType = UNSET
    rdx: Hex | UnsetType = UNSET
    rbx: Hex | UnsetType = UNSET
    rbp: Hex | UnsetType = UNSET
    rsi: Hex | UnsetType = UNSET
    rdi: Hex | UnsetType = UNSET
    r8: Hex | UnsetType = UNSET
    r9: Hex | UnsetType = UNSET
    r10: Hex | UnsetType = UNSET
    r11: Hex | UnsetType = UNSET
    r12: Hex | UnsetType = UNSET
    r13: Hex | UnsetType = UNSET
    r14: Hex | UnsetType = UNSET
    r15: Hex | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Check the numbers of 64 bits, which a bound of msgspec cannot."""
        if self.seq > M64 or (self.tsc is not UNSET and self.tsc > M64):
            raise ValueError("seq and tsc have up to 64 bits")


class StoredEvent(Struct):
    """An event of evidence, as in EVENTINJ."""

    vector: _U8
    type: Annotated[int, Meta(ge=0, le=7)]
    error_code: _U32 | None


class StoredImage(Struct):
    """An image that UEFI firmware had loaded."""

    name: _Name
    base: Hex
    size: Hex
    module: _Name | None = None


class StoredEvidence(Struct):
    """A line of the type `evidence`."""

    event: StoredEvent | None
    vectoring: StoredEvent | None
    address: Hex | None
    first_address: Hex | None
    becomes: StoredEvent | Literal["shutdown"] | None
    physical_bits: Annotated[int, Meta(ge=32, le=52)]
    save: dict[_Path, Hex]
    gprs: dict[_Path, Hex]
    memory: Annotated[dict[Hex, Hex | None], Meta(max_length=1 << 14)]
    seq: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    cpuid: Annotated[dict[_Function, _Answer], Meta(max_length=64)] = {}
    unreturned: bool = False
    at_end: bool = False
    images: Annotated[list[StoredImage], Meta(max_length=1 << 12)] = []
    vcpu: _U32 = 0


class SymbolFile(Struct, frozen=True, kw_only=True):
    """A symbol file of a run."""

    name: str
    """Its path."""
    slide: Hex | None = None
    """The difference from its addresses to the guest's, modulo 2 to the 64th; None: it was not known at the start."""
    build_id: str | None = None
    """Of its GNU build ID note, in hexadecimal; None: it has none."""


class Metadata(Struct, frozen=True, kw_only=True):
    """What a file says of its run. Files that were imported, and old ones, lack all of it."""

    version: int = 1
    """Of the format: within a version columns and members may be added."""
    guest: str | None = None
    """The file as it was given, `sample:NAME`; None: QEMU's options name it, or it was code in memory."""
    description: str | None = None
    """What the guest was recognised as."""
    command_line: list[str] = []
    """Of the program that ran it."""
    exceptions: Mask | None = None
    """The mask of the exceptions that were forced at the start."""
    where: str | None = None
    """The condition on what was recorded; None: everything was."""
    processor: str | None = None
    """`unicorn`, `qemu` or the name of a processor of the user's own."""
    why: str | None = None
    """Why it was chosen."""
    versions: dict[str, str] = {}
    """Of trapline, Python and the processor."""
    build_id: str | None = None
    """Of the guest, if it is an ELF file that has one."""
    symbols: list[SymbolFile] = []
    """The symbol files, when the guest began to run."""
    started: str | None = None
    """When the machine was switched on: UTC, as in ISO 8601."""
    registers: bool = True
    """Whether records have the general registers."""
    tsc_frequency: Frequency | None = None
    """Ticks of the time stamp counter in a second; None: unknown."""


class _Kind(Struct):
    type: _Name | None = None


RUN: Final = "run"
EVIDENCE: Final = "evidence"
"""The `type` of such lines; records have none."""
_KIND: Final = Decoder(_Kind)
_RECORD: Final = Decoder(StoredRecord)
_EVIDENCE: Final = Decoder(StoredEvidence)
_METADATA: Final = Decoder(Metadata)

Line: TypeAlias = StoredRecord | StoredEvidence | Metadata


def read_stored(file: BinaryIO, before: int = 0) -> Iterator[tuple[int, Line]]:
    """Yield the number and the content of each line that is a record, evidence or metadata; other types are left out.

    `before`: lines before the first. The last line may be cut off, by a run that was killed. Raises UsageError, without
    the file's name.
    """
    number = before
    while line := file.readline(LONGEST + 1):
        number += 1
        if not line.startswith(b"{"):
            raise UsageError(f"line {number} is not a record: run -o did not write this file")
        if len(line) > LONGEST:
            raise UsageError(f"line {number} is longer than {LONGEST:,} bytes: run -o did not write this file")
        if not line.endswith(b"\n"):
            return
        kind = _decode(number, line, _KIND).type
        decoder = _DECODERS.get(kind)
        if decoder is not None:
            yield number, _decode(number, line, decoder)


def read_metadata(text: bytes) -> Metadata:
    """Return metadata that a file has as a member of its own. Raises UsageError."""
    return _decode("metadata", text, _METADATA)


def read_evidence(text: bytes) -> Iterator[StoredEvidence]:
    """Yield the evidence in a text of lines. Raises UsageError."""
    for line in text.splitlines(keepends=True):
        yield _decode("evidence", line, _EVIDENCE)


def metadata_text(metadata: Metadata) -> bytes:
    """Return metadata as JSON."""
    return encode(metadata)


def evidence_line(evidence: StoredEvidence) -> str:
    """Return evidence as a line of JSON."""
    return '{"type":"evidence",' + encode(evidence)[1:].decode() + "\n"


def run_line(metadata: Metadata) -> bytes:
    """Return metadata as a line of JSON."""
    return b'{"type":"run",' + encode(metadata)[1:] + b"\n"


_DECODERS: Final[Mapping[str | None, "Decoder[Any]"]] = {None: _RECORD, EVIDENCE: _EVIDENCE, RUN: _METADATA}


def _decode(place: int | str, line: bytes, decoder: "Decoder[_S]") -> _S:
    """Return what is in a line of JSON. Raises UsageError with the number of the line, or what it is, and its fault."""
    number = f"line {place}" if isinstance(place, int) else f"its {place}"
    try:
        return decoder.decode(line)
    except ValidationError as error:
        told = str(error).replace(f"Expected `str` matching regex {_HEX!r}", "Expected a number of 64 bits, as `0x1f`")
        raise UsageError(f"{number} is damaged: {told}") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{number} is not JSON: run -o did not write this file") from error
    except RecursionError as error:
        raise UsageError(f"{number} is damaged: it is nested too deeply") from error
