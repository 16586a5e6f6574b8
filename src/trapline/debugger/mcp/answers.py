"""The typed answers of the tools. Addresses and 64-bit values are hexadecimal text, exceptions are as `#PF`."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of an answer; the docstrings of its members are in the schema that clients get."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Answer(Part):
    """The answer of a tool."""

    left_out: list[str] | None = None
    """What was cut to keep the answer small, and how much."""


class NextStep(Part):
    """A call that makes sense next."""

    tool: str
    arguments: dict[str, Any]
    why: str


class Raised(Part):
    """A recorded exception."""

    seq: int
    """Number of the record, from 0."""
    name: str
    error_code: str | None = None
    meaning: str | None = None
    """What the error code says."""
    address: str | None = None
    """The faulting linear address of a #PF."""
    cpl: int | None = None
    rip: str | None = None
    place: str | None = None
    """Function, offset and source line; missing: unknown."""
    vectoring: str | None = None
    """The event that was being delivered when it was raised."""
    outcome: str | None = None
    """`forwarded`, `combined` (to a #DF), `shutdown`, `discarded`, `injected`, `undelivered`."""
    registers: dict[str, str] | None = None


class Counted(Part):
    """How often an exception was recorded."""

    name: str
    count: int
    first: str
    """Where it was raised the first time."""
    last: str


class Why(Part):
    """Why an exception was raised, or why its delivery failed."""

    title: str
    seq: int | None = None
    """The number of the last record that it is about."""
    cause: str
    proven: bool
    """Whether a change of state is known with which it would not have happened."""
    text: list[str]
    """The chain of events, step by step, with the cause and the change that proves it."""


class Place(Part):
    """Where a guest is."""

    rip: str
    """The linear address of the instruction."""
    place: str | None = None
    """Function, offset and source line; missing: unknown."""
    code: list[str]
    """Instructions; `>` marks the one at CS:RIP."""
    callers: list[str]
    """By call frame information, or as a guess by frame pointers; innermost first."""


class RunAnswer(Answer):
    """A run that is over."""

    run: str
    """Its number for `explain`, `exceptions`, `diff` and the resource trapline://run/{run}."""
    guest: str
    ending: str
    """`off`, `reset`, `debug_exit`, `halted`, `shutdown` (a triple fault), `timeout`, `failed`, ..."""
    detail: str | None = None
    exit_code: int
    """That of `trapline run`: 0 means that the guest ended well."""
    processor: str
    seconds: float
    cause: str | None = None
    """Why it ended so, in a sentence; missing: it ended well, or nothing is known."""
    why: list[Why]
    """The explanations: of the shutdown, and of exceptions that the guest never came back from."""
    findings: list[str]
    """Sentences on where the guest is: a storm of exceptions, interrupts that cannot come."""
    recorded: int
    """How many exceptions were recorded."""
    counts: list[Counted]
    first: list[Raised]
    last: list[Raised]
    where: Place | None = None
    """Where the guest was, if it did not end well."""
    console: str
    """The end of what the guest wrote to its console."""
    console_size: int
    """How many bytes it wrote."""
    screen: list[str]
    """The VGA's text screen."""
    notes: list[str]
    """Warnings and hints about the machine that the guest found."""
    next: list[NextStep]


class ExplainAnswer(Answer):
    """The double and triple faults of a run, oldest first, and the exceptions that the guest never came back from."""

    trace: str
    explanations: list[Why]
    findings: list[str]
    note: str | None = None
    """Why there is nothing to explain."""
    next_cursor: str | None = None
    """For the next page; missing: this is the last one."""


class Group(Part):
    """Exceptions with the same keys."""

    keys: dict[str, Any]
    count: int
    first: int
    """The number of the first record."""
    last: int


class ExceptionsAnswer(Answer):
    """Exceptions of a trace, or groups of them."""

    trace: str
    total: int | None = None
    """How many exceptions meet the conditions; on the first page."""
    distinct: int | None = None
    """How many groups there are."""
    exceptions: list[Raised] | None = None
    groups: list[Group] | None = None
    next_cursor: str | None = None
    """For the next page; missing: this is the last one."""


class DiffAnswer(Answer):
    """What is different between two traces."""

    same: bool
    summary: str
    common: int
    """Exceptions that both have, in the same order."""
    new: int
    gone: int
    moved: int
    changed: int
    text: list[str]
    """Where they part, with the registers that differ, and the first differences."""
    counts: list[dict[str, Any]]
    """The exceptions whose number changed most."""


class ImportAnswer(Answer):
    """A log that is now a trace."""

    run: str
    """Its number for `exceptions` and `diff`."""
    recorded: int
    counts: list[dict[str, Any]]
    next: list[NextStep]
