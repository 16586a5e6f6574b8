"""The arguments of requests: what is used of them. What else a client sends is left out."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Whole = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Granularity = Literal["statement", "line", "instruction"]


class Arguments(Struct, rename="camel"):
    """Those of a request that has none that are used."""


class Initialize(Arguments):
    """What the client is like."""

    lines_start_at_1: bool = True
    columns_start_at_1: bool = True
    path_format: str = "path"


class Launch(Arguments):
    """Which guest is run, and how: the options of `trapline run`."""

    guest: str | None = None
    exceptions: str | Natural | None = None
    processor: str = "auto"
    memory: str | Natural | None = None
    cpus: Natural | None = None
    schedule: Natural | None = None
    entry_mode: Literal[16, 32, 64] | None = None
    load_address: str | Natural | None = None
    media: str | None = None
    uefi: bool = False
    initrd: str | None = None
    append: str | None = None
    accel: str = "auto"
    isolate: bool = False
    reboot: bool = False
    qemu: str | None = None
    qemu_options: list[str] = []
    symbols: list[str] = []
    syntax: str = "intel"
    where: str | None = None
    output: str | None = None
    registers: bool = True
    force: bool = False
    cwd: str | None = None
    """The directory that file names are relative to."""
    source_roots: list[str] = []
    """Directories in which sources are looked for."""
    stop_on_entry: bool = False
    no_debug: bool = False
    """Run without breakpoints and filters."""


class Restart(Arguments):
    """`arguments` are those of a new launch."""

    arguments: Launch | None = None


class Source(Arguments):
    """A source file."""

    name: str | None = None
    path: str | None = None
    source_reference: Natural = 0


class SourceBreakpoint(Arguments):
    """A line at which to stop."""

    line: Natural
    condition: str | None = None
    hit_condition: str | None = None
    log_message: str | None = None


class SetBreakpoints(Arguments):
    """All breakpoints of one source."""

    source: Source
    breakpoints: list[SourceBreakpoint] = []


class FunctionBreakpoint(Arguments):
    """A function at whose first instruction to stop."""

    name: str
    condition: str | None = None
    hit_condition: str | None = None


class SetFunctionBreakpoints(Arguments):
    """All breakpoints on functions."""

    breakpoints: list[FunctionBreakpoint]


class InstructionBreakpoint(Arguments):
    """An instruction at which to stop."""

    instruction_reference: str
    offset: Whole = 0
    condition: str | None = None
    hit_condition: str | None = None


class SetInstructionBreakpoints(Arguments):
    """All breakpoints on instructions."""

    breakpoints: list[InstructionBreakpoint]


class DataBreakpointInfo(Arguments):
    """Of what a data breakpoint may be set: a variable of a container, or an expression."""

    name: str
    variables_reference: Natural = 0
    frame_id: Natural | None = None
    bytes: Natural | None = None
    as_address: bool = False


class DataBreakpoint(Arguments):
    """Memory at whose access to stop."""

    data_id: str
    access_type: Literal["read", "write", "readWrite"] = "write"
    condition: str | None = None
    hit_condition: str | None = None


class SetDataBreakpoints(Arguments):
    """All data breakpoints."""

    breakpoints: list[DataBreakpoint]


class FilterOption(Arguments):
    """An exception filter with a condition."""

    filter_id: str
    condition: str | None = None


class SetExceptionBreakpoints(Arguments):
    """All exception filters that are on."""

    filters: list[str]
    filter_options: list[FilterOption] = []


class BreakpointLocations(Arguments):
    """Lines of a source in which to look for code."""

    source: Source
    line: Natural
    end_line: Natural | None = None


class StackTrace(Arguments):
    """Some frames of a CPU; `levels` 0: all."""

    thread_id: Natural = 0
    start_frame: Natural = 0
    levels: Natural = 0


class Scopes(Arguments):
    """Of a frame."""

    frame_id: Natural


class Variables(Arguments):
    """Some children of a container; `count` 0: all."""

    variables_reference: Natural
    start: Natural = 0
    count: Natural = 0


class SetVariable(Arguments):
    """A new value of a variable of a container."""

    variables_reference: Natural
    name: str
    value: str


class SetExpression(Arguments):
    """A new value of a register or of memory."""

    expression: str
    value: str
    frame_id: Natural | None = None


class Evaluate(Arguments):
    """An expression, or a command of the console."""

    expression: str
    context: str | None = None
    frame_id: Natural | None = None
    """The frame of whose CPU the registers are meant; None: of the one that was looked at last."""


class Completions(Arguments):
    """What could be typed at a column."""

    text: str
    column: Natural


class ReadMemory(Arguments):
    """Bytes of memory."""

    memory_reference: str
    count: Natural
    offset: Whole = 0


class WriteMemory(Arguments):
    """Bytes to store: `data` in base64."""

    memory_reference: str
    data: str
    offset: Whole = 0
    allow_partial: bool = False


class Disassemble(Arguments):
    """Instructions around an address."""

    memory_reference: str
    instruction_count: Natural
    offset: Whole = 0
    instruction_offset: Whole = 0
    resolve_symbols: bool = False


class Step(Arguments):
    """How far to step, and which CPU."""

    thread_id: Natural = 0
    granularity: Granularity = "statement"


class SourceContent(Arguments):
    """Which source's text."""

    source: Source | None = None
    source_reference: Natural = 0
