"""Requests about where the guest is to stop."""

from trapline.errors import TraplineError

from . import arguments, bodies, frames, wanted
from .breakpoints import Kind, Point, Wanted
from .exceptions import set_filters
from .state import Done, State


def set_breakpoints(state: State, asked: arguments.SetBreakpoints) -> Done:
    """Set all breakpoints of one source."""
    of = asked.source.path or asked.source.name or ""
    return _set(state, Kind.LINE, wanted.on_lines(asked, state.base), of)


def set_function_breakpoints(state: State, asked: arguments.SetFunctionBreakpoints) -> Done:
    """Set all breakpoints on functions."""
    return _set(state, Kind.FUNCTION, wanted.on_functions(asked))


def set_instruction_breakpoints(state: State, asked: arguments.SetInstructionBreakpoints) -> Done:
    """Set all breakpoints on instructions."""
    return _set(state, Kind.INSTRUCTION, wanted.on_instructions(asked))


def set_data_breakpoints(state: State, asked: arguments.SetDataBreakpoints) -> Done:
    """Set all breakpoints on memory."""
    return _set(state, Kind.DATA, wanted.on_data(asked))


def set_exception_breakpoints(state: State, asked: arguments.SetExceptionBreakpoints) -> Done:
    """Set all exception filters."""
    options = [*(arguments.FilterOption(name) for name in asked.filters), *asked.filter_options]
    state.filters = options
    if state.debuggee is None or state.debuggee.launch.no_debug:
        return Done(bodies.Breakpoints([bodies.Breakpoint(False) for _ in options]))
    return Done(bodies.Breakpoints(set_filters(state.debuggee.target, options)))


def data_breakpoint_info(state: State, asked: arguments.DataBreakpointInfo) -> Done:
    """Tell what memory a data breakpoint on a variable, or on an expression, would watch."""
    guest, name = state.guest, asked.name
    if asked.variables_reference:
        item = guest.containers.item(asked.variables_reference, asked.name)
        name = item.memory or item.expression or item.name
    else:
        frames.select(guest, asked.frame_id)
    try:
        value = guest.evaluate(name)
    except TraplineError as error:
        return Done(bodies.DataBreakpointInfo(None, str(error.args[0])))
    address, size = value.address, value.size
    if address is None and (value.is_symbol or asked.as_address or asked.variables_reference):
        address, size = value.number, guest.width
    if address is None:
        text = f"{name} is not in memory: watch a symbol, or memory as dword [rsp + 8]"
        return Done(bodies.DataBreakpointInfo(None, text))
    size = asked.bytes or size
    text = f"{size} bytes at {guest.named(address)}"
    return Done(bodies.DataBreakpointInfo(wanted.data_id(address, size), text, wanted.ACCESSES, True))


def breakpoint_locations(state: State, asked: arguments.BreakpointLocations) -> Done:
    """Tell which lines of a source have code."""
    shift = 1 - state.base
    lines = wanted.lines_of(state.guest, asked.source.path or asked.source.name or "")
    last = asked.line if asked.end_line is None else asked.end_line
    found = sorted(line - shift for line in lines if asked.line <= line - shift <= last)
    return Done(bodies.Locations([bodies.Location(line) for line in found]))


def _set(state: State, kind: Kind, asked: list[Wanted], of: str = "") -> Done:
    guest = state.debuggee
    points = state.points.replace(kind, of, asked, None if guest is None or guest.launch.no_debug else guest)
    return Done(bodies.Breakpoints([_body(state, point) for point in points]))


def _body(state: State, point: Point) -> bodies.Breakpoint:
    body = point.body()
    if body.line is not None:
        body.line += state.base - 1
    return body
