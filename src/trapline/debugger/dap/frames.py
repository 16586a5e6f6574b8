"""The frames of the stopped guest, with their sources."""

from typing import Final

from trapline.arch.bits import M64
from trapline.report.crash import Frame

from . import arguments, bodies
from .debuggee import Debuggee

_CPU: Final = 20
"""The place of the CPU in the number of a frame."""


def stack_trace(asked: arguments.StackTrace, debuggee: Debuggee, base: int) -> bodies.StackTrace:
    """Return the frames that were asked for, innermost first; `base` is the number of a file's first line.

    A function that was inlined has a frame of its own. Callers are those of `Target.frames`. The CPU is in the frame's
    number: see `cpu_of`.
    """
    first = debuggee.target.cpu.number << _CPU
    found = [body for number, frame in enumerate(debuggee.target.frames()) for body in _bodies(frame, number, debuggee)]
    for number, body in enumerate(found, first + 1):
        body.id = number
        if body.source is not None:
            body.line, body.column = body.line - 1 + base, base
    end = asked.start_frame + asked.levels if asked.levels else len(found)
    return bodies.StackTrace(found[asked.start_frame : end], len(found))


def cpu_of(frame: int) -> int:
    """Return the number of the CPU of a frame, given the frame's number."""
    return frame >> _CPU


def select(debuggee: Debuggee, frame: int | None) -> None:
    """Look at the CPU of a frame, given the frame's number, if it is. Raises UsageError."""
    if frame is not None:
        debuggee.target.select(cpu_of(frame))


def _bodies(frame: Frame, number: int, debuggee: Debuggee) -> list[bodies.StackFrame]:
    """Return the frames of a place; `number` 0: the guest is there, else it is the return address of a call."""
    symbol, pointer = frame.symbol, f"{frame.address:#x}"
    if symbol is None:
        return [bodies.StackFrame(0, pointer, 0, 0, None, pointer, "subtle" if number else None)]
    if symbol.file is None or symbol.line is None:
        return [bodies.StackFrame(0, symbol.place if symbol.offset else symbol.name, 0, 0, None, pointer)]
    directory = debuggee.machine.session.names.directory(frame.address - bool(number) & M64)
    places = [(each.function, each.file, each.line) for each in symbol.inlined] or [
        (symbol.name, symbol.file, symbol.line)
    ]
    found = []
    for name, file, line in places:
        source = None if file is None else debuggee.sources.find(directory, file)
        found.append(bodies.StackFrame(0, name, line or 0, 0, source, pointer))
    return found
