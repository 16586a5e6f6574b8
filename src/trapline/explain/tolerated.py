"""What a processor took that the manual refuses: a real one raises #GP(0) there."""

from collections.abc import Iterator

from trapline.arch.cpuid import CR4_FEATURES
from trapline.arch.events import Event, EventType
from trapline.arch.registers import CR3, CR4
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.machine.processor import Processor

from .control import lacking
from .cpuid import CpuidAnswers
from .evidence import capture
from .explain import Disassembler, explain_exception
from .instruction import Namer

_GP = Event(Vector.GP, EventType.EXCEPTION, 0)


def tolerated(processor: Processor, *, name: Namer, disassemble: Disassembler) -> str:
    """Return the sentence on the instruction at which the guest is stopped, and which its processor executes."""
    evidence = capture(processor, _GP, _GP, (None, None), None, None)
    origin = explain_exception(evidence, name=name, disassemble=disassemble).origin
    if origin is None:
        return f"A real processor raises #GP(0) at {processor.vmcb.save.rip:#x}: this one does not check the value."
    place = origin.symbol or f"{origin.cs:04x}:{origin.rip:x}"
    why = "" if origin.reason is None else f": {origin.reason}"
    return f"A real processor raises #GP(0) at {place} ({origin.instruction}), and this one does not{why}."


def unsupported(save: SaveArea, cpuid: CpuidAnswers) -> Iterator[str]:
    """Yield sentences on bits of CR4 that are set and that the guest's CPU lacks."""
    missing = lacking(cpuid, CR4, save.cr4, CR4_FEATURES)
    if missing is None:
        return
    text = f"CR4 is {save.cr4:#x}, and {missing}: a real processor raises #GP(0) at a MOV to CR4 that sets it"
    if save.cr4 & CR4.PCIDE and save.cr3 & CR3.PCID:
        text += f", and one with PCIDE where CR3[11:0] is not zero: it is {save.cr3 & CR3.PCID:#x}"
    yield f"{text}."


def ask_about_cr4(cpuid: CpuidAnswers) -> None:
    """Ask the guest's CPU what `unsupported` needs, as long as it answers."""
    for function in {row[1] for row in CR4_FEATURES}:
        cpuid(function)
