"""What a run prints at its end: for people on stderr, for programs as JSON on stdout."""

import json
from typing import IO, Any

from trapline.arch.vectors import VECTORS
from trapline.session import Ending, LastState, Result
from trapline.symbols import Names
from trapline.trace.exception_record import linear_rip
from trapline.trace.exceptions import Exceptions
from trapline.trace.jsonl import json_lines
from trapline.trace.tally import VectorCount

from .choice import Choice
from .explanation import print_explanation
from .scene import json_scene, print_scene
from .table import print_table
from .wrap import print_line

_SHOWN = 12
"""How many exceptions the report of a shutdown shows."""


def print_summary(result: Result, choice: Choice, names: Names, syntax: str, file: IO[str]) -> None:
    """Print how the guest ended, what led to a shutdown, and the counts."""
    print(file=file)
    if result.ending is Ending.SHUTDOWN:
        _print_shutdown(result, names, syntax, file)
    print_line(f"guest: {_ending(result)} after {result.seconds:.2f} s, {choice.processor}: {choice.why}", "", file)
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
                    _place(row.first_rip, row.first_cs_base, names),
                    _place(row.last_rip, row.last_cs_base, names),
                )
                for row in result.counts
            ],
            right=(1, 2),
            file=file,
        )
    for hint in result.hints:
        print_line(hint, "", file)
    for symbols in names.unplaced:
        print_line(
            f"{symbols.name} named nothing: no such Linux kernel was seen to run (@SLIDE says where it is)", "", file
        )
    print_line(
        f"{_counted(result.recorded, 'exception')} recorded; {_counted(result.exits, '#VMEXIT')} handled in Python; "
        f"guest stopped for {result.stopped * 1000:,.1f} ms ({result.stopped / result.seconds:.1%})",
        "",
        file,
    )


def print_json(result: Result, choice: Choice, exit_code: int, names: Names, syntax: str, file: IO[str]) -> None:
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
                **_json_names(row, names),
            }
            for row in result.counts
        ],
    }
    if result.scene is not None:
        summary["scene"] = json_scene(result.scene, names, syntax)
    if result.explanation is not None:
        summary["explanation"] = result.explanation.to_json()
    if result.state is not None:
        lines = json_lines(result.last, result.recorded - len(result.last), names.lookup)
        summary["last"] = [json.loads(line) for line in lines]
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


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _place(rip: int, cs_base: int, names: Names) -> str:
    """Return an address for a narrow column: its name, with file and line below, or else the number."""
    symbol = names.lookup(linear_rip(rip, cs_base))
    if symbol is None:
        return f"{rip:#x}"
    return symbol.place if symbol.source is None else f"{symbol.place}\n{symbol.source}"


def _json_names(row: VectorCount, names: Names) -> dict[str, str]:
    found = {}
    for which, rip, cs_base in (("first", row.first_rip, row.first_cs_base), ("last", row.last_rip, row.last_cs_base)):
        symbol = names.lookup(linear_rip(rip, cs_base))
        if symbol is not None:
            found[f"{which}_symbol"] = symbol.place
            if symbol.source is not None:
                found[f"{which}_source"] = symbol.source
    return found


def _print_shutdown(result: Result, names: Names, syntax: str, file: IO[str]) -> None:
    """The exceptions that led to a triple fault, newest last, and the state before the reset."""
    state = result.state
    assert state is not None, "a shutdown without the guest's state"
    print("triple fault: the last exceptions, newest last", file=file)
    for record in Exceptions(result.records, lookup=names.lookup)[-_SHOWN:]:
        print_line(str(record), "  ", file)
    if not result.records:
        print("  none was recorded: run it again with --exceptions all", file=file)
    print(
        f"at the shutdown  cpl {state.cpl}  {state.cs:04x}:{state.rip:016x}  rsp {state.rsp:#x}\n"
        f"  cr0 {state.cr0:#x}  cr2 {state.cr2:#x}  cr3 {state.cr3:#x}  cr4 {state.cr4:#x}  efer {state.efer:#x}\n"
        f"  idt {state.idt_base:#x} limit {state.idt_limit:#x}\n",
        file=file,
    )
    if result.scene is not None:
        print_scene(result.scene, names, syntax, file)
    if result.explanation is not None:
        print_explanation("why it shut down", result.explanation, file)
