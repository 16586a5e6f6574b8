"""Two runs of one program, compared: the first thing that differs."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.arch.events import VALID, decode
from trapline.arch.layout import leaves
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import mnemonic
from trapline.arch.vmcb import SaveArea
from trapline.machine.record import Record, RecordFlags

from .program import Program
from .runner import Run

_IN_RECORDS: Final = tuple(
    leaf.path for leaf in leaves(Record()) if not leaf.path.startswith(("tsc", "vcpu", "reserved"))
)
_AFTER_TSC: Final = 8
_IN_SAVE: Final = tuple(
    leaf.path
    for leaf in leaves(SaveArea())
    if leaf.offset < 0x248
    and not leaf.path.startswith(("perf", "reserved", "instr", "s_cet", "ssp", "isst", "gdtr.s", "idtr.s"))
    and leaf.path not in ("gdtr.attributes", "idtr.attributes")
)


class Difference(NamedTuple):
    """What differs first between two runs: in a record, in the end or in the state at the end."""

    program: Program
    first: Run
    second: Run
    record: int | None
    """The number of the record; None: it is not in the records."""
    fields: dict[str, tuple[int, int]]
    """By name, the values of both."""
    text: str

    def __str__(self) -> str:
        return f"{self.program}\n    {self.text}"


def first_difference(program: Program, first: Run, second: Run, *, records: bool = True) -> Difference | None:
    """Compare two runs; without `records` only how they ended."""
    if records:
        for number, (one, two) in enumerate(zip(first.records, second.records, strict=False)):
            fields = _fields(one, two)
            if fields:
                text = f"record {number}: {_shown(fields)}\n      {_record(one)}\n      {_record(two)}"
                return Difference(program, first, second, number, fields, text)
        if len(first.records) != len(second.records):
            return _missing(program, first, second)
    fields = dict(_ends(first, second)) | dict(_states(first, second)) | dict(_memory(first, second))
    if not fields:
        return None
    return Difference(
        program, first, second, None, fields, f"at the end: {_shown(fields)} {first.detail[:300]} {second.detail[:300]}"
    )


def _fields(one: Record, two: Record) -> dict[str, tuple[int, int]]:
    if bytes(one)[_AFTER_TSC:] == bytes(two)[_AFTER_TSC:]:
        return {}
    found = {path: (getattr(one, path), getattr(two, path)) for path in _IN_RECORDS}
    # Whether the processor or the hypervisor found an SVM instruction undefined does not count.
    found["flags"] = (one.flags & ~RecordFlags.SYNTHESIZED, two.flags & ~RecordFlags.SYNTHESIZED)
    # QEMU and Unicorn end RF with a block of code, not with an instruction, and a kick begins another block. What a
    # delivery pushes is compared with the memory.
    found["rflags"] = (one.rflags & ~RFLAGS.RF, two.rflags & ~RFLAGS.RF)
    for word in ("exit_int_info", "event"):
        found[word] = tuple(value if value & VALID else 0 for value in found[word])  # type: ignore[assignment]
    return {path: values for path, values in found.items() if values[0] != values[1]}


def _missing(program: Program, first: Run, second: Run) -> Difference:
    number = min(len(first.records), len(second.records))
    more = max(first.records, second.records, key=len)
    text = (
        f"records: {len(first.records)} and {len(second.records)}, ends {first.end.value} and {second.end.value} "
        f"{first.detail[:300]}{second.detail[:300]}; "
        f"the next is\n      {_record(more[number])}"
    )
    return Difference(program, first, second, number, {"records": (len(first.records), len(second.records))}, text)


def _ends(first: Run, second: Run) -> Iterator[tuple[str, tuple[int, int]]]:
    if first.end is not second.end:
        yield f"{first.end.value} and {second.end.value}", (0, 1)


def _states(first: Run, second: Run) -> Iterator[tuple[str, tuple[int, int]]]:
    if bytes(first.save) != bytes(second.save):
        for one, two in zip(leaves(first.save), leaves(second.save), strict=True):
            if one.value != two.value and one.path in _IN_SAVE:
                yield one.path, (one.value, two.value)
    if bytes(first.gprs) != bytes(second.gprs):
        for one, two in zip(leaves(first.gprs), leaves(second.gprs), strict=True):
            if one.value != two.value and one.path not in ("rax", "rsp"):
                yield one.path, (one.value, two.value)


def _memory(first: Run, second: Run) -> Iterator[tuple[str, tuple[int, int]]]:
    if first.memory != second.memory and first.memory and second.memory:
        for offset, (one, two) in enumerate(zip(first.memory, second.memory, strict=True)):
            if one != two:
                yield f"[{offset:#x}]", (one, two)


def _shown(fields: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {one:#x} / {two:#x}" for name, (one, two) in list(fields.items())[:12])


def _record(record: Record) -> str:
    vectoring = decode(record.exit_int_info)
    return (
        f"{mnemonic(record.vector)}({record.error_code:#x}) flags {record.flags:#x} at {record.cs:04x}:{record.rip:x} "
        f"ss:rsp {record.ss:04x}:{record.rsp:x} rflags {record.rflags:x} cpl {record.cpl} address {record.address:x} "
        f"dr6 {record.dr6:x} during {vectoring} cr0 {record.cr0:x} cr4 {record.cr4:x} efer {record.efer:x}"
    )
