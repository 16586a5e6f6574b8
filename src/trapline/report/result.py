"""How a run ended and what it saw: the one document that every renderer reads."""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, cast

from trapline.arch.vectors import FORCEABLE, Vector
from trapline.errors import TraplineError
from trapline.explain.explanation import Explanation
from trapline.symbols import Symbol
from trapline.trace.exception_record import ExceptionRecord
from trapline.trace.exceptions import Exceptions
from trapline.trace.jsonl import json_lines

from .crash import CrashContext, named
from .document import CountDocument, EndingName, RecordDocument, RunDocument, UnreturnedDocument

LAST: Final = 64
"""How many of the last exceptions the JSON document has after a crash."""


class Ending(Enum):
    """How a run ended; the value is text for people."""

    OFF = "power off"
    RESET = "reset"
    DEBUG_EXIT = "debug exit"
    HALTED = "halted, and nothing can wake it"
    SHUTDOWN = "shutdown (triple fault)"
    RULE = "stopped by a rule"
    EXCEPTION = "stopped at an exception"
    STOPPED = "stopped"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


_EXIT_CODES: Final = {
    Ending.SHUTDOWN: 3,
    Ending.RULE: 5,
    Ending.TIMEOUT: 124,
    Ending.INTERRUPTED: 130,
    Ending.FAILED: 1,
}
_BY_GUEST: Final = (Ending.OFF, Ending.DEBUG_EXIT)
"""Endings that the guest asked for: a success also from the task of its #DF."""
_GUEST_FAILED: Final = 4
RULE_BROKEN: Final = 5
IN_HANDLER: Final = 5
"""It ended inside a handler of an exception, by a halt or a reset."""


class Place(NamedTuple):
    """Where an exception was raised."""

    rip: int
    """RIP of the instruction."""
    address: int
    """Its linear address: RIP and the base of CS."""
    symbol: Symbol | None
    """The symbol of that address; None: unknown."""


class Count(NamedTuple):
    """How often an exception was recorded."""

    vector: Vector
    """The exception."""
    times: int
    """How often it was recorded."""
    first: Place
    """Where it was raised the first time."""
    last: Place
    """Where it was raised the last time."""


class Violation(NamedTuple):
    """A rule that a run violated."""

    rule: str
    """The rule as it was given."""
    message: str
    """What happened instead."""


class Unreturned(NamedTuple):
    """An exception that was delivered, and in whose handler the guest ended."""

    record: ExceptionRecord
    """The exception."""
    explanation: Explanation | None
    """Why it was raised; None: nothing is known."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """A run that is over. Times are in seconds."""

    ending: Ending
    """How it ended."""
    detail: str = ""
    """More about it: of FAILED the error, or the VMCB at an exit without a handler; of EXCEPTION which one, and why."""
    processor: str
    """The processor: `unicorn`, `qemu`, or the name of a processor of the user's own."""
    why: str
    """Why that processor was chosen."""
    exit_status: int | None = None
    """For DEBUG_EXIT: QEMU's exit status, (value << 1) | 1."""
    seconds: float
    """The duration, including the start of the processor."""
    recorded: int
    """How many exceptions were recorded."""
    where: str | None = None
    """The condition on what was recorded; None: everything was."""
    forced: int = FORCEABLE
    """A mask of the exceptions that were forced at any time: no other can have been recorded."""
    exits: int
    """How many #VMEXITs were handled in Python."""
    stopped_seconds: float
    """How long the guest was stopped for them."""
    counts: tuple[Count, ...] = ()
    """How often each exception was recorded, by vector."""
    exceptions: Exceptions
    """The recorded exceptions, oldest first: the newest `keep` of them."""
    crash: CrashContext | None = None
    """The context of the guest at the shutdown, before the machine was reset, or at the exception that stopped it, or
    where it was when the run ended otherwise than by its own success."""
    explanation: Explanation | None = None
    """The explanation of the shutdown, or of the exception at which the guest was stopped."""
    unreturned: tuple[Unreturned, ...] = ()
    """The exceptions that the guest never came back from: the last one, then the first one if that is another."""
    findings: tuple[str, ...] = ()
    """Sentences on why a guest is where it is that ended otherwise than by its own success: a storm of exceptions."""
    screen: tuple[str, ...] = ()
    """The lines of the VGA's last screen in text mode; empty: nothing was on it, or QEMU had ended."""
    warnings: tuple[str, ...] = ()
    """Sentences on what the guest did that a real processor refuses, and this one did not."""
    hints: tuple[str, ...] = ()
    """Sentences about devices that the guest tried to use and its machine does not have."""
    unplaced: tuple[str, ...] = ()
    """Symbol files of Linux kernels that were not found in the guest."""
    violations: tuple[Violation, ...] = ()
    """The rules that were violated."""
    unreached: tuple[str, ...] = ()
    """What `stop` asked for, if none of it was raised."""
    console: bytes = b""
    """The guest's console output, unless `inherit` got it: the last 16 MiB."""
    error: TraplineError | None = field(default=None, compare=False)
    """The error of trapline that ended the run."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.ending.value}, {self.recorded:,} recorded>"

    @property
    def exit_value(self) -> int | None:
        """The value that the guest wrote to isa-debug-exit; None: it wrote none."""
        return None if self.exit_status is None else self.exit_status >> 1

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: 0 if the guest ended well and no rule was violated."""
        code = _EXIT_CODES.get(self.ending, 0)
        if self.ending is Ending.DEBUG_EXIT and self.exit_value:
            code = _GUEST_FAILED
        if code == 0 and self.unreturned and self.ending not in _BY_GUEST:
            code = IN_HANDLER
        return RULE_BROKEN if code == 0 and self.violations else code

    def last(self, count: int = LAST) -> Exceptions:
        """Return the last exceptions, newest last."""
        return self.exceptions[max(len(self.exceptions) - count, 0) :]

    def to_json(self) -> RunDocument:
        """Return the result for JSON, as in `docs/run.schema.json`."""
        crashed = self.crash is not None or self.ending is Ending.FAILED
        return {
            "version": 1,
            "ending": cast(EndingName, self.ending.name.lower()),
            "detail": self.detail,
            "processor": self.processor,
            "why": self.why,
            "exit_code": self.exit_code,
            "debug_exit": self.exit_status,
            "seconds": round(self.seconds, 6),
            "recorded": self.recorded,
            "where": self.where,
            "exits": self.exits,
            "stopped_seconds": round(self.stopped_seconds, 6),
            "counts": [_count(row) for row in self.counts],
            "warnings": list(self.warnings),
            "hints": list(self.hints),
            "violations": [{"rule": each.rule, "message": each.message} for each in self.violations],
            "unreached": list(self.unreached),
            "last": self._last_json() if crashed else [],
            "crash": self.crash.to_json() if self.crash is not None else None,
            "explanation": self.explanation.to_json() if self.explanation is not None else None,
            "findings": list(self.findings),
            "screen": list(self.screen),
            "unreturned": [_unreturned(each) for each in self.unreturned],
        }

    def _last_json(self) -> list[RecordDocument]:
        last = self.last()
        if not last:
            return []
        return [json.loads(line) for line in json_lines(last.data, last[0].seq, last.lookup)]


def _unreturned(each: Unreturned) -> UnreturnedDocument:
    record = each.record
    return {
        "seq": record.seq,
        "vector": int(record.vector),
        "name": record.vector.mnemonic,
        "rip": f"{record.rip:#x}",
        **named(record.symbol),
        "explanation": each.explanation.to_json() if each.explanation is not None else None,
    }


def _count(row: Count) -> CountDocument:
    found: dict[str, Any] = {"vector": int(row.vector), "name": row.vector.mnemonic, "count": row.times}
    for which, place in (("first", row.first), ("last", row.last)):
        found[f"{which}_rip"] = f"{place.rip:#x}"
        found |= {f"{which}_{name}": text for name, text in named(place.symbol).items() if name != "inlined"}
    return cast(CountDocument, found)
