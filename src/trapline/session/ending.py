"""What is told of a guest that ended otherwise than by its own success: where it is, what it never came back from."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.arch.events import Event, EventType
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.disassembler import instruction
from trapline.devices.text_screen import screen_lines
from trapline.explain.blackbox import chains
from trapline.explain.evidence import Evidence
from trapline.explain.explain import Disassembler, explain, explain_delivered
from trapline.explain.explanation import Explanation
from trapline.explain.unexplained import Unexplained
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.linear import address_mask, code_address, read_mapped
from trapline.machine.processor import Processor
from trapline.report.crash import CrashContext
from trapline.report.result import Unreturned
from trapline.symbols import Names
from trapline.symbols.loaded import LoadedImages
from trapline.trace.exception_record import ExceptionRecord
from trapline.trace.exceptions import Exceptions
from trapline.trace.recorder import BLACK_BOX, Recorder

from .other_cpus import describe_others

if TYPE_CHECKING:
    from trapline.explain.blackbox import BlackBox
    from trapline.explain.first_exceptions import FirstExceptions

_BEFORE: Final = 16
"""Bytes before a HLT; with a CLI among them it is the guest's end."""
_CLI: Final = 0xFA
_NOTHING: Final = Event(Vector.NMI, EventType.NMI)
"""An event for a state in which none was raised."""


class Moment(NamedTuple):
    """A stopped guest, as copies."""

    crash: CrashContext
    unreturned: tuple[Unreturned, ...]
    """The exceptions that it never came back from: the last one, then the first one if that is another."""
    findings: tuple[str, ...]
    """Sentences on why it is there."""
    screen: tuple[str, ...]


class Seen(NamedTuple):
    """What was kept of a run."""

    recorder: Recorder
    note: Callable[[Evidence], None]
    """Writes evidence to the file of records."""
    black_box: "BlackBox"
    first_exceptions: "FirstExceptions"
    unexplained: Unexplained


def note_evidence(recorder: Recorder, images: LoadedImages | None, evidence: Evidence) -> None:
    """Write evidence to the file of records, with the images that a guest with UEFI firmware has loaded."""
    recorder.note((evidence if images is None else evidence._replace(images=images.images)).to_json())


def moment(
    crash: CrashContext,
    vcpu: Vcpu,
    seen: Seen,
    names: Names,
    syntax: str,
    *,
    known: frozenset[int] | None,
    stuck: bool,
) -> Moment:
    """Return what there is to tell of a stopped guest; its evidence goes to the file of records.

    `known`: of the exceptions that it has not come back from, only the records with these numbers; None: all.
    `stuck`: it waits in a HLT that nothing can end.
    """
    processor = vcpu.processor
    guard, last = seen.unexplained.guard, _newest(vcpu, seen)
    found = [each for each in unreturned_now(vcpu, seen, names) if known is None or each.seq in known]
    disassemble = partial(instruction, syntax=syntax)
    told = [
        Unreturned(record, _explain(vcpu, seen, record, names, disassemble)) for record in found[:1] + found[1:][-1:]
    ]
    storms = guard(lambda: _storms(last, processor, seen.recorder, names, disassemble), ())
    findings = [*storms, *chip_findings(processor, seen)]
    if not told:
        findings += guard(lambda: _strays(processor, names), ())
        findings += guard(lambda: _waiting(processor), ()) if stuck else ()
    findings += guard(lambda: tuple(describe_others(vcpu, names)), ())
    screen = guard(lambda: screen_lines(processor.read_screen()), ())
    return Moment(crash, tuple(told), tuple(findings), screen)


def before_shutdown(vcpu: Vcpu, seen: Seen, names: Names, syntax: str) -> tuple[Unreturned, ...]:
    """Return the first exception that a guest never came back from which shut down, unless it is like the last ones."""
    disassemble = partial(instruction, syntax=syntax)
    last = seen.black_box.chain()
    for record in unreturned_now(vcpu, seen, names)[-1:]:
        if not any(record.rip == each.save.rip for each in last):
            return (Unreturned(record, _explain(vcpu, seen, record, names, disassemble)),)
    return ()


def unreturned_now(vcpu: Vcpu, seen: Seen, names: Names) -> list[ExceptionRecord]:
    """Return the exceptions that a stopped guest never came back from, of those that were kept, the latest first."""
    return seen.unexplained.guard(lambda: _unreturned(vcpu, seen, names), [])


def _unreturned(vcpu: Vcpu, seen: Seen, names: Names) -> list[ExceptionRecord]:
    from trapline.explain.unreturned import unreturned

    records = _newest(vcpu, seen)
    first = [
        Exceptions(data, first=number, lookup=names.lookup)[0]
        for number, data in seen.first_exceptions.records.items()
        if not records or number < records[0].seq
    ]
    ours = [record for record in first if record.vcpu == vcpu.number]
    processor = vcpu.processor
    return unreturned([*ours, *records], vcpu.save, processor.memory, processor.capabilities.physical_bits)


def _newest(vcpu: Vcpu, seen: Seen) -> list[ExceptionRecord]:
    """Return those of the newest records that are of a CPU."""
    return [record for record in seen.recorder.exceptions()[-BLACK_BOX:] if record.vcpu == vcpu.number]


def in_double_fault_task(vcpu: Vcpu, seen: Seen, names: Names, syntax: str) -> tuple[Unreturned, ...]:
    """Return the #DF in whose task a guest ended, with its evidence alone, for the machine may be gone."""
    return seen.unexplained.guard(lambda: _in_double_fault_task(vcpu, seen, names, syntax), ())


def _in_double_fault_task(vcpu: Vcpu, seen: Seen, names: Names, syntax: str) -> tuple[Unreturned, ...]:
    from trapline.explain.task import task_gate

    last = next((record for record in reversed(_newest(vcpu, seen)) if record.vector is Vector.DF), None)
    chain = None if last is None else _chain(seen.black_box, last.seq)
    if last is None or last.injected is None or chain is None:
        return ()
    first = chain[0]
    if task_gate(first.save, first.memory, last.injected, first.physical_bits) != vcpu.save.tr.selector:
        return ()
    return (Unreturned(last, explain(chain, name=names.text, disassemble=partial(instruction, syntax=syntax))),)


def chip_findings(processor: Processor, seen: Seen) -> tuple[str, ...]:
    """Return sentences on what the interrupt controllers and the A20 gate show."""
    from trapline.explain.chips import describe_chips

    state = processor.chips()
    if state is None:
        return ()
    save, halted = processor.vmcb.save, processor.halted
    return seen.unexplained.guard(lambda: tuple(describe_chips(state, save, halted=halted)), ())


def _strays(processor: Processor, names: Names) -> list[str]:
    """Return what is wrong with where the CPU is."""
    from trapline.explain.attempt import Attempt
    from trapline.explain.evidence import capture
    from trapline.explain.instruction import Instruction
    from trapline.explain.state import strays

    evidence = capture(processor, None, None, (None, None), None, None)
    return strays(Instruction(Attempt.of(evidence, _NOTHING), evidence, names.text))


def _waiting(processor: Processor) -> tuple[str, ...]:
    from trapline.explain.chips import describe_waiting

    state, save = processor.chips(), processor.vmcb.save
    before = read_mapped(save, processor.memory, code_address(save) - _BEFORE & address_mask(save), _BEFORE)
    wanted = not save.rflags & RFLAGS.IF and _CLI in before
    return () if state is None or wanted else tuple(describe_waiting(state, save))


def _storms(
    last: Sequence[ExceptionRecord],
    processor: Processor,
    recorder: Recorder,
    names: Names,
    disassemble: Disassembler,
) -> tuple[str, ...]:
    from trapline.explain.recorded import recorded_evidence
    from trapline.explain.storm import describe_storm, storm

    found = storm(last)
    if found is None:
        return ()
    total = next(row.count for row in recorder.tally.rows() if row.vector == found.record.vector)
    evidence = recorded_evidence(found.explained, processor)
    explanation = explain_delivered(evidence, name=names.text, disassemble=disassemble)
    return (describe_storm(found, total, explanation, processor.vmcb.save.dr7),)


def _explain(
    vcpu: Vcpu, seen: Seen, record: ExceptionRecord, names: Names, disassemble: Disassembler
) -> Explanation | None:
    """Explain an exception that a guest never came back from; None: nothing is known."""

    def explain() -> Explanation | None:
        if record.vector is Vector.DF:
            return _explain_chain(seen.black_box, record.seq, names, disassemble)
        return _explain_delivered(vcpu.processor, seen, record, names, disassemble)

    return seen.unexplained.guard(explain, None)


def _explain_delivered(
    processor: Processor, seen: Seen, record: ExceptionRecord, names: Names, disassemble: Disassembler
) -> Explanation:
    from trapline.explain.recorded import recorded_evidence

    kept = seen.first_exceptions.find(record.seq)
    evidence = (recorded_evidence(record, processor) if kept is None else kept)._replace(unreturned=True)
    explanation = explain_delivered(evidence, name=names.text, disassemble=disassemble)
    seen.note(evidence)  # with the memory that the explanation read
    return explanation


def _explain_chain(black_box: "BlackBox", sequence: int, names: Names, disassemble: Disassembler) -> Explanation | None:
    """Explain the chain of exceptions that led to the #DF with this number; None: there is no evidence."""
    chain = _chain(black_box, sequence)
    return None if chain is None else explain(chain, name=names.text, disassemble=disassemble)


def _chain(black_box: "BlackBox", sequence: int) -> list[Evidence] | None:
    for chain in reversed(chains(black_box.evidence)):
        if any(piece.sequence in (sequence, sequence - 1) for piece in chain):  # a #DF of its own has the number after
            return chain
    return None
