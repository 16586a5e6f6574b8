"""The table of requests: the arguments of each, when it is answered, and by what."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from . import arguments, looking, running, stopping
from .state import Done, State, When


class Row(NamedTuple):
    """A request."""

    arguments: type[arguments.Arguments]
    when: When
    answer: Callable[[State, Any], Done]
    """Raises TraplineError with the reason why it is refused."""


_ALWAYS, _BETWEEN, _STOPPED, _INTERRUPTS = When.ALWAYS, When.BETWEEN, When.STOPPED, When.INTERRUPTS

REQUESTS: Final[dict[str, Row]] = {
    "initialize": Row(arguments.Initialize, _ALWAYS, running.initialize),
    "launch": Row(arguments.Launch, _STOPPED, running.launch),
    "attach": Row(arguments.Arguments, _ALWAYS, running.attach),
    "configurationDone": Row(arguments.Arguments, _STOPPED, running.configuration_done),
    "restart": Row(arguments.Restart, _INTERRUPTS, running.restart),
    "terminate": Row(arguments.Arguments, _INTERRUPTS, running.terminate),
    "disconnect": Row(arguments.Arguments, _INTERRUPTS, running.disconnect),
    "continue": Row(arguments.Arguments, _STOPPED, running.resume),
    "next": Row(arguments.Step, _STOPPED, running.step_over),
    "stepIn": Row(arguments.Step, _STOPPED, running.step_into),
    "stepOut": Row(arguments.Step, _STOPPED, running.step_out),
    "setBreakpoints": Row(arguments.SetBreakpoints, _BETWEEN, stopping.set_breakpoints),
    "setFunctionBreakpoints": Row(arguments.SetFunctionBreakpoints, _BETWEEN, stopping.set_function_breakpoints),
    "setInstructionBreakpoints": Row(
        arguments.SetInstructionBreakpoints, _BETWEEN, stopping.set_instruction_breakpoints
    ),
    "setDataBreakpoints": Row(arguments.SetDataBreakpoints, _BETWEEN, stopping.set_data_breakpoints),
    "setExceptionBreakpoints": Row(arguments.SetExceptionBreakpoints, _BETWEEN, stopping.set_exception_breakpoints),
    "dataBreakpointInfo": Row(arguments.DataBreakpointInfo, _BETWEEN, stopping.data_breakpoint_info),
    "breakpointLocations": Row(arguments.BreakpointLocations, _BETWEEN, stopping.breakpoint_locations),
    "readMemory": Row(arguments.ReadMemory, _BETWEEN, looking.read_memory),
    "writeMemory": Row(arguments.WriteMemory, _BETWEEN, looking.write_memory),
    "disassemble": Row(arguments.Disassemble, _BETWEEN, looking.disassemble),
    "source": Row(arguments.SourceContent, _BETWEEN, looking.source),
    "threads": Row(arguments.Arguments, _ALWAYS, looking.threads),
    "stackTrace": Row(arguments.StackTrace, _STOPPED, looking.stack_trace),
    "scopes": Row(arguments.Scopes, _STOPPED, looking.scopes),
    "variables": Row(arguments.Variables, _STOPPED, looking.variables),
    "setVariable": Row(arguments.SetVariable, _STOPPED, looking.set_variable),
    "setExpression": Row(arguments.SetExpression, _STOPPED, looking.set_expression),
    "evaluate": Row(arguments.Evaluate, _STOPPED, looking.evaluate),
    "completions": Row(arguments.Completions, _STOPPED, looking.completions),
    "exceptionInfo": Row(arguments.Arguments, _STOPPED, looking.info),
}
