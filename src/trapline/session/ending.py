"""What is told of a guest that ended otherwise than by its own success: where it is, what it never came back from."""

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from trapline.arch.vectors import Vector
from trapline.asm.disassembler import instruction
from trapline.explain.explain import explain_exception
from trapline.report.crash import CrashContext
from trapline.report.result import Unreturned
from trapline.trace.recorder import BLACK_BOX

if TYPE_CHECKING:
    from trapline.explain.explanation import Explanation
    from trapline.trace.exception_record import ExceptionRecord

    from .session import Session


class Moment(NamedTuple):
    """A stopped guest, as copies."""

    crash: CrashContext
    unreturned: tuple[Unreturned, ...]
    """The exceptions that it never came back from: the last one, then the first one if that is another."""


def moment(session: "Session") -> Moment:
    """Return what there is to tell of a stopped guest; its evidence goes to the file of records."""
    from trapline.explain.unreturned import unreturned

    crash = session.crash()
    last = session.recorder.exceptions()[-BLACK_BOX:]
    processor = session.processor
    found = unreturned(list(last), processor.vmcb.save, processor.memory, processor.capabilities.physical_bits)
    told = found[:1] + found[1:][-1:]
    return Moment(crash, tuple(Unreturned(record, _explanation(session, record)) for record in told))


def _explanation(session: "Session", record: "ExceptionRecord") -> "Explanation | None":
    from trapline.explain.recorded import recorded_evidence

    if record.vector is Vector.DF:
        return session.explain_chain(record.seq)
    evidence = recorded_evidence(record, session.processor, unreturned=True)
    disassemble = partial(instruction, syntax=session.settings.syntax)
    explanation = explain_exception(evidence, name=session.names.text, disassemble=disassemble)
    session.recorder.note(evidence.to_json())  # with the memory that the explanation read
    return explanation
