"""The tools over runs and traces, as clients see them: their parameters, and what they are for."""

from functools import partial
from typing import Annotated, Literal, TypeAlias

import anyio
from pydantic import Field

from . import running, traces
from .answers import DiffAnswer, ExceptionsAnswer, ExplainAnswer, ImportAnswer, RunAnswer
from .guests import Access, Options, Timeout
from .machines import Machines
from .stored import Runs
from .threads import in_thread
from .traces import Filters

Guest: TypeAlias = Annotated[str, Field(description="A file, recognised by its content, or sample:NAME.")]
Trace: TypeAlias = Annotated[
    str, Field(description="The number of a run, such as r1, or a trace file that `trapline run -o` wrote.")
]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=100, description="Items of a page; fewer if they are large.")]
Cursor: TypeAlias = Annotated[str | None, Field(description="`next_cursor` of the page before; the rest as there.")]
Symbols: TypeAlias = Annotated[list[str] | None, Field(description="Symbol files, each FILE or FILE@SLIDE.")]
Where: TypeAlias = Annotated[
    str | None,
    Field(
        description='A condition, such as `cpl == 0 and vector == pf and not address < 0x1000`, `symbol ~ "copy_*"`, '
        "`rip == 0x1000`."
    ),
]
Set: TypeAlias = Annotated[str | None, Field(description="Only these: pf,gp or all,!pf.")]


class Tools:
    """The tools that run guests to their end, and that read traces."""

    def __init__(self, access: Access, runs: Runs, machines: Machines) -> None:
        self._access, self._runs, self._machines = access, runs, machines
        self._guests = anyio.Semaphore(2)
        """So many guests run at a time."""

    async def run(
        self,
        guest: Guest,
        exceptions: Annotated[str, Field(description="Which are intercepted: all, none, pf,gp or all,!pf.")] = "all",
        timeout: Timeout = 10,
        options: Options | None = None,
    ) -> RunAnswer:
        """Run an x86 guest to its end with its exceptions intercepted, and say why it ended so.

        Start here. The answer has the ending, the cause with its proof, the first and last exceptions, counts, the end
        of the console, and the call that makes sense next. Guests are kernels (ELF, multiboot, Linux), boot sectors,
        disk, floppy and CD images; disks are not written to.
        """
        stored = self._runs.new(guest)
        do = partial(
            running.run,
            access=self._access,
            runs=self._runs,
            stored=stored,
            exceptions=exceptions,
            timeout=timeout,
            options=options or Options(),
        )
        async with self._guests:
            return await in_thread(do)

    async def explain(
        self, trace: Trace, symbols: Symbols = None, limit: Limit = 4, cursor: Cursor = None
    ) -> ExplainAnswer:
        """Explain each double and triple fault of a trace, and the exceptions that its guest never came back from.

        An explanation names the check of the CPU that failed, and proves its cause by the change of state with which
        the delivery would have worked.
        """
        if self._machines.recorded(trace) is not None:
            async with self._machines.using(trace) as held:
                return await in_thread(lambda work: traces.explain_held(held), held.worker.start)
        return await in_thread(
            partial(
                traces.explain,
                runs=self._runs,
                files=self._access.files,
                trace=trace,
                symbols=symbols or (),
                limit=limit,
                cursor=cursor,
            )
        )

    async def exceptions(
        self,
        trace: Trace,
        exceptions: Set = None,
        where: Where = None,
        function: Annotated[str | None, Field(description="In this function; a pattern, such as copy_*.")] = None,
        process: Annotated[str | None, Field(description="Of the address space with these page tables: CR3.")] = None,
        first: Annotated[str | None, Field(description="From the record of this number on, or tsc:N.")] = None,
        until: Annotated[str | None, Field(description="Up to the record of this number, or tsc:N.")] = None,
        last: Annotated[int | None, Field(ge=1, description="Only the newest of all these, so many.")] = None,
        by: Annotated[
            str | None,
            Field(description="Count them by these keys instead: vector, symbol, rip, process, cpl, any column."),
        ] = None,
        registers: Annotated[bool, Field(description="With the general registers of each exception.")] = False,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> ExceptionsAnswer:
        """List the exceptions of a trace in the order in which they were raised, or count them in groups."""
        filters = Filters(exceptions, where, function, process, first, until)
        ask = partial(traces.exceptions, registers=registers) if by is None else partial(traces.grouped, by=by)
        return await in_thread(
            partial(
                ask,
                runs=self._runs,
                machines=self._machines,
                trace=trace,
                filters=filters,
                last=last,
                limit=limit,
                cursor=cursor,
            )
        )

    async def diff(
        self,
        a: Trace,
        b: Trace,
        exceptions: Set = None,
        where: Where = None,
        by: Annotated[
            Literal["place", "function"],
            Field(description="What a place is: the instruction, or its function alone, for two builds of a guest."),
        ] = "place",
        state: Annotated[bool, Field(description="The registers must be equal, too.")] = False,
    ) -> DiffAnswer:
        """Compare the exceptions of two runs: where they part, what is new, gone, moved or changed."""
        filters = Filters(exceptions, where)
        return await in_thread(
            partial(
                traces.diff, runs=self._runs, machines=self._machines, a=a, b=b, filters=filters, by=by, state=state
            )
        )

    async def import_log(
        self,
        path: Annotated[str, Field(description="The log of `qemu -d int,cpu_reset -D LOG`.")],
        symbols: Symbols = None,
    ) -> ImportAnswer:
        """Read a log of QEMU as a trace, for the tools exceptions and diff. It has no evidence for explain."""
        stored = self._runs.new(path)
        return await in_thread(
            partial(traces.import_log, runs=self._runs, files=self._access.files, stored=stored, symbols=symbols or ())
        )
