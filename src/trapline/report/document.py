"""A run as JSON: the types of its objects. Addresses and 64-bit values are hexadecimal text."""

from typing import Literal, NotRequired, TypeAlias, TypedDict

from trapline.explain.document import ExplanationDocument

EndingName: TypeAlias = Literal[
    "off",
    "reset",
    "debug_exit",
    "halted",
    "shutdown",
    "rule",
    "stopped",
    "timeout",
    "interrupted",
    "failed",
]
OutcomeName: TypeAlias = Literal["forwarded", "combined", "shutdown", "discarded", "injected", "undelivered"]


class NamedDocument(TypedDict):
    """The name of an address."""

    symbol: NotRequired[str]
    """The function and the offset: `memset+0x1a`; left out where no symbol is known."""
    source: NotRequired[str]
    """File and line: `lib/string.c:88`."""


class CountDocument(TypedDict):
    """How often an exception was recorded."""

    vector: int
    name: str
    """As `#PF`."""
    count: int
    first_rip: str
    first_symbol: NotRequired[str]
    first_source: NotRequired[str]
    last_rip: str
    last_symbol: NotRequired[str]
    last_source: NotRequired[str]


class ViolationDocument(TypedDict):
    """A rule that the run did not keep."""

    rule: str
    message: str


class EventDocument(TypedDict):
    """An event under delivery, or one that was injected."""

    vector: int
    type: str
    """`intr`, `nmi`, `exception` or `soft` (INT n)."""
    error_code: int | None


class RecordDocument(NamedDocument):
    """A recorded exception, as in the file of `trapline run -o`: the guest's state before it saw the exception."""

    seq: int
    """Number of the record, from 0."""
    tsc: int
    vcpu: int
    vector: int
    name: str
    error_code: int | None
    address: str | None
    """The faulting linear address of a #PF."""
    cpl: int
    cs: str
    rip: str
    ss: str
    rsp: str
    rflags: str
    cr0: str
    cr3: str
    cr4: str
    efer: str
    dr6: str
    vectoring: EventDocument | None
    """What was being delivered when it was raised."""
    outcome: OutcomeName
    injected: EventDocument | None
    """What the guest got for it."""


class InstructionDocument(TypedDict):
    """An instruction."""

    address: str
    bytes: str
    """Hexadecimal, two digits a byte."""
    text: str
    at: bool
    """Whether it is the one at CS:RIP."""


class FrameDocument(NamedDocument):
    """A caller."""

    address: str
    """Where it goes on, after its call."""


class StackDocument(NamedDocument):
    """A value on the stack, with the name that it has if it is a return address."""

    value: str


class CrashDocument(NamedDocument):
    """Where the guest was. All addresses are linear."""

    registers: dict[str, str]
    """By name; segments as `cs` with `cs_base`, tables as `gdtr_base` and `gdtr_limit`."""
    bits: int
    """Size of the code: 16, 32 or 64."""
    address: str
    """Of the instruction at CS:RIP."""
    code: list[InstructionDocument]
    """The instruction with some before and after it; empty: nothing is mapped there."""
    callers_guessed: list[FrameDocument]
    """By frame pointers, the innermost first."""
    stack_address: str
    stack: list[StackDocument]
    """From the stack pointer up; empty: the stack is not mapped."""


class RunDocument(TypedDict):
    """A run that is over, as `trapline run --json` prints it and `Run.to_json` returns it.

    Members may be added within a version; none changes its meaning or goes away.
    """

    version: Literal[1]
    ending: EndingName
    detail: str
    """More about the ending: of `failed` the error, or the VMCB at an exit that nobody handles."""
    processor: str
    """`unicorn` or `qemu`, or the name of a processor of one's own."""
    why: str
    """Why it was that processor."""
    exit_code: int
    """What the command line exits with: 0 where the guest ended well and every rule was kept."""
    debug_exit: int | None
    """After `debug_exit` what QEMU exits with: (value << 1) | 1."""
    seconds: float
    recorded: int
    """Exceptions recorded."""
    exits: int
    """#VMEXITs handled in Python."""
    stopped_seconds: float
    """How long the guest was stopped for them."""
    counts: list[CountDocument]
    hints: list[str]
    """Devices that the guest looked for and its machine does not have, in sentences."""
    violations: list[ViolationDocument]
    last: list[RecordDocument]
    """The last exceptions before a crash, newest last."""
    crash: CrashDocument | None
    """Where the guest was when it shut down, or when a rule stopped it."""
    explanation: ExplanationDocument | None
