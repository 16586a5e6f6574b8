"""What a run prints at its end: for people on stderr, for programs as JSON on stdout."""

import json
from typing import IO, Any

from trapline.arch.vectors import VECTORS
from trapline.session import Ending, LastState, Result
from trapline.trace.lines import json_lines, text_line

from .choice import Choice
from .story import print_story
from .table import print_table

_SHOWN = 12
"""How many exceptions the report of a shutdown shows."""


def print_summary(result: Result, choice: Choice, file: IO[str]) -> None:
    """Print how the guest ended, what led to a shutdown, and the counts."""
    print(file=file)
    if result.ending is Ending.SHUTDOWN:
        _print_shutdown(result, file)
    print(f"guest: {_ending(result)} after {result.seconds:.2f} s, {choice.processor}: {choice.why}", file=file)
    if result.detail and result.ending is Ending.FAILED and result.error is None:
        print(result.detail, file=file)
    if result.counts:
        print_table(
            ("exception", "count", "per second", "first at", "last at"),
            [
                (
                    f"{VECTORS[row.vector].mnemonic} ({row.vector})",
                    f"{row.count:,}",
                    f"{row.count / result.seconds:,.0f}",
                    f"{row.first_rip:#x}",
                    f"{row.last_rip:#x}",
                )
                for row in result.counts
            ],
            right=(1, 2),
            file=file,
        )
    for hint in result.hints:
        print(hint, file=file)
    print(
        f"{result.recorded:,} exceptions recorded; {result.exits:,} exits decided in Python, for which the guest stood "
        f"still {result.stopped * 1000:,.1f} ms ({result.stopped / result.seconds:.1%})",
        file=file,
    )


def print_json(result: Result, choice: Choice, exit_code: int, file: IO[str]) -> None:
    """Print the same as one JSON object."""
    summary: dict[str, Any] = {
        "ending": result.ending.name.lower(),
        "processor": "qemu" if choice.boot is None else "unicorn",
        "detail": result.detail,
        "exit_code": exit_code,
        "debug_exit": result.exit_status,
        "seconds": round(result.seconds, 6),
        "recorded": result.recorded,
        "exits": result.exits,
        "hints": list(result.hints),
        "stopped_seconds": round(result.stopped, 6),
        "counts": [
            {
                "vector": row.vector,
                "name": VECTORS[row.vector].mnemonic,
                "count": row.count,
                "first_rip": f"{row.first_rip:#x}",
                "last_rip": f"{row.last_rip:#x}",
            }
            for row in result.counts
        ],
    }
    if result.story is not None:
        summary["explanation"] = result.story.to_json()
    if result.state is not None:
        summary["last"] = [json.loads(line) for line in json_lines(result.last, result.recorded - len(result.last))]
        summary["state"] = {
            name: value if isinstance(value, str | None) else f"{value:#x}"
            for name, value in ((name, getattr(result.state, name)) for name in LastState._fields)
        }
    json.dump(summary, file)
    print(file=file)


def _ending(result: Result) -> str:
    if result.ending is Ending.DEBUG_EXIT and result.exit_status is not None:
        return f"debug exit with {result.exit_status >> 1:#x}"
    return result.ending.value


def _print_shutdown(result: Result, file: IO[str]) -> None:
    """The exceptions that led to a triple fault, newest last, and the state before the reset."""
    state = result.state
    assert state is not None, "a shutdown without the guest's state"
    print("triple fault: the last exceptions, newest last", file=file)
    for record in result.last[-_SHOWN:]:
        print(f"  {text_line(record)}", file=file)
    if not len(result.last):
        print("  none was recorded: run it again with --exceptions all", file=file)
    print(
        f"at the shutdown  cpl {state.cpl}  {state.cs:04x}:{state.rip:016x}  rsp {state.rsp:#x}\n"
        f"  cr0 {state.cr0:#x}  cr2 {state.cr2:#x}  cr3 {state.cr3:#x}  cr4 {state.cr4:#x}  efer {state.efer:#x}\n"
        f"  idt {state.idt_base:#x} limit {state.idt_limit:#x}\n",
        file=file,
    )
    if result.story is not None:
        print_story("why it shut down", result.story, file)
