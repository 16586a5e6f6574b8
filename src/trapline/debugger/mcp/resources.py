"""The resources: runs and their traces, how both are written, and the prompt."""

import contextlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from trapline.errors import TraplineError, UsageError
from trapline.trace.files.layout import STORED, StoredColumns
from trapline.trace.json_block import json_block
from trapline.trace.reading import Reading
from trapline.trace.selection import read_choice
from trapline.typed import one_line

from .small import CAP, cut_to
from .stored import Runs
from .threads import Work, in_thread

_DOCS: Final = (Path(__file__).parent / "docs", Path(__file__).parents[4] / "docs")
"""Where the package and the repository have them."""
_HUNT: Final = """\
Find out why the guest {guest} {symptom}, with the tools of trapline.

1. Call `run` with the guest. Read `ending`, `cause` and `why`: the cause of a triple fault is proven by the change of
   state with which the delivery would have worked. If that answers the question, stop here.
2. If the cause is where the chain began, and not why the guest got there, make the first call of `next`: it holds the
   guest at the first exception, before it is delivered. Look with `registers`, `disassemble`, `memory`, `tables`
   and `page_walk`; `step` and `resume` go on.
3. If nothing was proven, or there are very many exceptions, call `exceptions` with `by` "vector,symbol", then list the
   first ones of the group that stands out.

Report the instruction with its function and line, the state that is wrong, the value that it should have, and the
sentence of trapline that proves it. Say what you did not verify.
"""


def add_resources(server: MCPServer[None], runs: Runs) -> None:
    """Add the resources and the prompt to a server."""

    @server.resource(
        "trapline://schema/run", name="run schema", title="JSON schema of a run", mime_type="application/schema+json"
    )
    def run_schema() -> str:
        """The schema of trapline://run/{run}, and of what `trapline run --json` prints."""
        return _page("run.schema.json")

    @server.resource(
        "trapline://schema/trace", name="trace format", title="The format of traces", mime_type="text/markdown"
    )
    def trace_format() -> str:
        """The members of the records of trapline://run/{run}/trace."""
        return _page("trace-format.md")

    @server.resource("trapline://run/{run}", name="run", title="The result of a run", mime_type="application/json")
    def run(run: str) -> str:
        """The result of a run, long lists cut."""
        with _telling():
            document = runs.find(run).document
            if document is None:
                raise UsageError(f"{run}: it has no result: it is not over, or is an imported log")
            return cut_to(CAP, document)

    @server.resource(
        "trapline://run/{run}/trace{?first}", name="trace", title="The records of a run", mime_type="application/jsonl"
    )
    async def trace(run: str, first: str = "0") -> str:
        """The records of a run as lines of JSON, from a number on, as many as fit in 32 KiB."""
        with _telling():
            return await in_thread(partial(_lines, path=runs.find(run).path, first=first))

    @server.prompt(title="Hunt a triple fault")
    def hunt_a_triple_fault(guest: str, symptom: str = "shuts down by a triple fault") -> str:
        """Find out why a guest triple-faults, resets, panics or hangs."""
        return _HUNT.format(guest=guest, symptom=symptom)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except TraplineError as error:
        raise ResourceNotFoundError(one_line(str(error.args[0]))) from error


def _page(name: str) -> str:
    return next(folder / name for folder in _DOCS if (folder / name).exists()).read_text(encoding="utf-8")


def _lines(work: Work, path: str, first: str) -> str:
    lines: list[str] = []
    left = CAP
    with Reading([path], read_choice(first=first)) as records:
        records.watch(work.check)
        blocks = (json_block(StoredColumns(batch)).splitlines(keepends=True) for batch in records.batches(STORED))
        for line in chain.from_iterable(blocks):
            left -= len(line)
            if left < 0:
                break
            lines.append(line.decode("ascii"))
    return "".join(lines)
