"""The types of the JSON document of a run. Addresses and 64-bit values are hexadecimal text."""

from typing import Literal, NotRequired, TypeAlias, TypedDict

from trapline.explain.document import ExplanationDocument

EndingName: TypeAlias = Literal[
    "off",
    "reset",
    "debug_exit",
    "halted",
    "shutdown",
    "rule",
    "exception",
    "stopped",
    "timeout",
    "interrupted",
    "failed",
]
OutcomeName: TypeAlias = Literal["forwarded", "combined", "shutdown", "discarded", "injected", "undelivered"]


class SourceDocument(TypedDict):
    """A place in the sources, in a function that may have been inlined."""

    function: str
    source: str | None
    """File and line; null: unknown."""


class NamedDocument(TypedDict):
    """The symbol of an address."""

    symbol: NotRequired[str]
    """The function and the offset: `memset+0x1a`; left out where no symbol is known."""
    source: NotRequired[str]
    """File and line: `lib/string.c:88`. Where functions were inlined: of the innermost that is not a library's."""
    inlined: NotRequired[list[SourceDocument]]
    """The functions that were inlined there, innermost first, then the function itself; left out in records."""


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
    """A rule that the run violated."""

    rule: str
    message: str


class EventDocument(TypedDict):
    """An event under delivery, or one that was injected."""

    vector: int
    type: str
    """`intr`, `nmi`, `exception` or `soft` (INT n)."""
    error_code: int | None


class RecordDocument(NamedDocument):
    """A recorded exception, as in the file of `trapline run -o`, with the guest's state before its delivery."""

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
    """The event that was being delivered when it was raised."""
    outcome: OutcomeName
    injected: EventDocument | None
    """The event that was injected."""
    synthesized: bool
    """Whether the hypervisor raised it, as the #DF that two exceptions combine to."""
    cs_base: str
    rax: str
    rcx: str
    rdx: str
    rbx: str
    rbp: str
    rsi: str
    rdi: str
    r8: str
    r9: str
    r10: str
    r11: str
    r12: str
    r13: str
    r14: str
    r15: str


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
    """The return address."""
    guessed: bool
    """By frame pointers, which a function need not keep; otherwise by the call frame information of symbols."""


class StackDocument(NamedDocument):
    """A value on the stack, with its symbol in case it is a return address."""

    value: str


class CpuDocument(TypedDict):
    """The CPU that something is about."""

    cpu: NotRequired[int]
    """Its number; left out: the machine has one."""


class CrashDocument(NamedDocument, CpuDocument):
    """The context of the guest. All addresses are linear."""

    registers: dict[str, str]
    """By name; segments as `cs` with `cs_base`, tables as `gdtr_base` and `gdtr_limit`."""
    bits: int
    """The size of the code: 16, 32 or 64."""
    halted: bool
    """Whether it waits in HLT."""
    address: str
    """The address of the instruction at CS:RIP."""
    code: list[InstructionDocument]
    """The instruction with some before and after it; empty: nothing is mapped there."""
    callers: list[FrameDocument]
    """Innermost first; empty: unknown."""
    stack_address: str
    stack: list[StackDocument]
    """From the stack pointer up; empty: the stack is not mapped."""


class UnreturnedDocument(NamedDocument):
    """An exception that was delivered, and in whose handler the guest ended."""

    seq: int
    """The number of its record."""
    vector: int
    name: str
    """As `#PF`."""
    rip: str
    explanation: ExplanationDocument | None
    """Why it was raised. It says where memory was read at the end of the run."""


class RunDocument(TypedDict):
    """The result of a run, as `trapline run --json` prints it and `Run.to_json` returns it.

    Within a version members may be added; none is removed or changes its meaning.
    """

    version: Literal[1]
    ending: EndingName
    detail: str
    """More about the ending: for `failed` the error, or the VMCB at an exit without a handler; for `exception` the stop
    that was asked for, and the exception."""
    processor: str
    """`unicorn`, `qemu`, or the name of a processor of the user's own."""
    why: str
    """Why that processor was chosen."""
    exit_code: int
    """The exit code of the command line: 0 if the guest ended well and no rule was violated."""
    debug_exit: int | None
    """For the ending `debug_exit`: QEMU's exit status, (value << 1) | 1."""
    seconds: float
    recorded: int
    """Exceptions recorded."""
    where: str | None
    """The condition on what was recorded; null: everything was."""
    exits: int
    """#VMEXITs handled in Python."""
    stopped_seconds: float
    """How long the guest was stopped for them."""
    counts: list[CountDocument]
    warnings: list[str]
    """Sentences on what the guest did that a real processor refuses, and this one did not."""
    hints: list[str]
    """Sentences about devices that the guest tried to use and its machine does not have."""
    violations: list[ViolationDocument]
    unreached: list[str]
    """What `--stop` asked for, if none of it was raised."""
    last: list[RecordDocument]
    """The last exceptions before a crash, newest last."""
    crash: CrashDocument | None
    """The context of the guest at the shutdown, at the exception that stopped it, or where it was when the run ended
    otherwise than by its own success."""
    explanation: ExplanationDocument | None
    findings: list[str]
    """Sentences on why a guest is where it is that ended otherwise than by its own success: a storm of exceptions."""
    screen: list[str]
    """The lines of the VGA's last screen in text mode; empty: nothing was on it, or QEMU had ended."""
    unreturned: list[UnreturnedDocument]
    """The exceptions that the guest never came back from: the last one, then the first one if that is another."""
