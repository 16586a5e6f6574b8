"""What responses and events consist of: names and meanings are the protocol's. What has its default is left out."""

from typing import Any, Final

from msgspec import Struct

CONSOLE: Final = "stdout"
"""The category of what the guest writes."""


class Body(Struct, rename="camel", omit_defaults=True):
    """Something that is sent."""


class ExceptionFilter(Body):
    """A kind of exception at which to stop."""

    filter: str
    label: str
    description: str
    default: bool = False
    supports_condition: bool = False
    condition_description: str | None = None


class Source(Body):
    """A source file."""

    name: str
    path: str | None = None
    source_reference: int = 0
    presentation_hint: str | None = None
    origin: str | None = None


class Breakpoint(Body):
    """A breakpoint as it is set, or why it is not."""

    verified: bool
    id: int | None = None
    message: str | None = None
    source: Source | None = None
    line: int | None = None
    instruction_reference: str | None = None


class Breakpoints(Body):
    """One for each that was asked for, in that order."""

    breakpoints: list[Breakpoint]


class BreakpointChanged(Body):
    """The event `breakpoint`."""

    reason: str
    breakpoint: Breakpoint


class DataBreakpointInfo(Body, omit_defaults=False):
    """What a data breakpoint can be set of; without a `data_id` why it cannot."""

    data_id: str | None
    description: str
    access_types: list[str] = []
    can_persist: bool = False


class Location(Body):
    """A line that has code."""

    line: int


class Locations(Body):
    """Lines that have code."""

    breakpoints: list[Location]


class Thread(Body):
    """A CPU."""

    id: int
    name: str


class Threads(Body):
    """The CPUs."""

    threads: list[Thread]


class StackFrame(Body):
    """The function that a CPU is in, or a caller."""

    id: int
    name: str
    line: int
    column: int
    source: Source | None = None
    instruction_pointer_reference: str | None = None
    presentation_hint: str | None = None


class StackTrace(Body):
    """Frames, innermost first."""

    stack_frames: list[StackFrame]
    total_frames: int


class Scope(Body):
    """A group of variables."""

    name: str
    variables_reference: int
    expensive: bool
    presentation_hint: str | None = None


class Scopes(Body):
    """The groups of a frame."""

    scopes: list[Scope]


class Variable(Body):
    """A value with a name, and perhaps with children."""

    name: str
    value: str
    variables_reference: int
    type: str | None = None
    evaluate_name: str | None = None
    memory_reference: str | None = None
    indexed_variables: int | None = None


class Variables(Body):
    """The children of a container."""

    variables: list[Variable]


class Changed(Body):
    """A variable after it was set."""

    value: str
    variables_reference: int = 0
    memory_reference: str | None = None


class Evaluated(Body):
    """The value of an expression, or what a command answers."""

    result: str
    variables_reference: int
    type: str | None = None
    memory_reference: str | None = None


class CompletionItem(Body):
    """What could be typed."""

    label: str
    start: int
    length: int
    type: str | None = None


class CompletionItems(Body):
    """What could be typed."""

    targets: list[CompletionItem]


class MemoryRead(Body):
    """Memory in base64."""

    address: str
    unreadable_bytes: int = 0
    data: str | None = None


class MemoryWritten(Body):
    """How much was stored."""

    bytes_written: int


class Instruction(Body):
    """An instruction, or a byte that is none."""

    address: str
    instruction: str
    instruction_bytes: str | None = None
    symbol: str | None = None
    location: Source | None = None
    line: int | None = None
    presentation_hint: str | None = None


class Instructions(Body):
    """As many as were asked for."""

    instructions: list[Instruction]


class ExceptionDetails(Body):
    """More on an exception."""

    message: str
    type_name: str
    full_type_name: str
    stack_trace: str


class ExceptionInfo(Body):
    """The exception at which the guest is stopped."""

    exception_id: str
    break_mode: str
    description: str
    details: ExceptionDetails


class Continued(Body):
    """What `continue` answers."""

    all_threads_continued: bool


class SourceContent(Body):
    """The text of a source."""

    content: str
    mime_type: str | None = None


class Stopped(Body):
    """The event `stopped`."""

    reason: str
    thread_id: int
    all_threads_stopped: bool
    description: str | None = None
    text: str | None = None
    hit_breakpoint_ids: list[int] | None = None


class Output(Body):
    """The event `output`."""

    category: str
    output: str


class Exited(Body):
    """The event `exited`."""

    exit_code: int


class Memory(Body):
    """The event `memory`: that much changed."""

    memory_reference: str
    offset: int
    count: int


class Invalidated(Body):
    """The event `invalidated`."""

    areas: list[str]


def capabilities(filters: list[ExceptionFilter]) -> dict[str, Any]:
    """Return what the adapter can do, and its exception filters."""
    able = (
        *("ConfigurationDoneRequest", "FunctionBreakpoints", "ConditionalBreakpoints", "HitConditionalBreakpoints"),
        *("EvaluateForHovers", "SetVariable", "SetExpression", "RestartRequest", "ExceptionInfoRequest"),
        *("ExceptionFilterOptions", "LogPoints", "TerminateRequest", "DataBreakpoints", "DataBreakpointBytes"),
        *("ReadMemoryRequest", "WriteMemoryRequest", "DisassembleRequest", "SteppingGranularity"),
        *("InstructionBreakpoints", "BreakpointLocationsRequest", "CompletionsRequest"),
    )
    return {**{f"supports{name}": True for name in able}, "exceptionBreakpointFilters": filters}
