"""From the arguments of requests to breakpoints: where each is looked for."""

import re
from functools import partial
from typing import Final

from trapline.errors import UsageError
from trapline.machine.processor import Watchpoint

from . import arguments, bodies
from .breakpoints import Place, Wanted
from .debuggee import Debuggee
from .expressions import read_address
from .memory import linear

_DATA: Final = re.compile(r"0x([0-9a-f]{1,16})/([0-9]{1,9})", re.ASCII)
ACCESSES: Final = ["write", "readWrite"]
_NO_READS: Final = "reads alone cannot be watched: choose write or readWrite"


def on_lines(asked: arguments.SetBreakpoints, base: int) -> list[Wanted]:
    """Return breakpoints on lines of a source; `base` is the number of a file's first line."""
    path = asked.source.path or asked.source.name
    if path is None:
        raise UsageError("the source of a breakpoint has no path")
    source = bodies.Source(asked.source.name or path, asked.source.path)
    return [
        Wanted(partial(_line, path, each.line + 1 - base), each.condition, each.hit_condition, each.log_message, source)
        for each in asked.breakpoints
    ]


def on_functions(asked: arguments.SetFunctionBreakpoints) -> list[Wanted]:
    """Return breakpoints on functions."""
    return [Wanted(partial(_function, each.name), each.condition, each.hit_condition) for each in asked.breakpoints]


def on_instructions(asked: arguments.SetInstructionBreakpoints) -> list[Wanted]:
    """Return breakpoints on instructions."""
    return [Wanted(partial(_instruction, each), each.condition, each.hit_condition) for each in asked.breakpoints]


def on_data(asked: arguments.SetDataBreakpoints) -> list[Wanted]:
    """Return breakpoints on memory."""
    return [Wanted(partial(_data, each), each.condition, each.hit_condition) for each in asked.breakpoints]


def data_id(address: int, size: int) -> str:
    """Return the name by which a client asks for a breakpoint on memory."""
    return f"{address:#x}/{size}"


def lines_of(debuggee: Debuggee, path: str) -> dict[int, list[int]]:
    """Return the lines of a source that have code, with their addresses. Raises UsageError where none is known."""
    names = debuggee.machine.session.names
    found = names.of_source(path)
    if found:
        return found
    if names.unplaced:
        raise UsageError(f"{path}: the symbols of the Linux kernel are not placed yet")
    raise UsageError(f"{path}: the symbols have no lines of it")


def _line(path: str, line: int, debuggee: Debuggee) -> Place:
    lines = lines_of(debuggee, path)
    first = min((each for each in lines if each >= line), default=None)
    if first is None:
        raise UsageError(f"{path}: its last line with code is {max(lines)}")
    return Place(tuple(lines[first]), first)


def _function(name: str, debuggee: Debuggee) -> Place:
    return Place((read_address(name, debuggee),))


def _instruction(asked: arguments.InstructionBreakpoint, debuggee: Debuggee) -> Place:
    return Place((linear(asked.instruction_reference, asked.offset, debuggee),))


def _data(asked: arguments.DataBreakpoint, debuggee: Debuggee) -> Place:
    match = _DATA.fullmatch(asked.data_id)
    if match is None:
        raise UsageError(f"{asked.data_id!r} is not what dataBreakpointInfo gave")
    if asked.access_type == "read":
        raise UsageError(_NO_READS)
    return Place(watched=Watchpoint(int(match[1], 16), int(match[2]), asked.access_type == "readWrite"))
