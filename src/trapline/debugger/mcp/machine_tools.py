"""The tools over held machines, as clients see them: their parameters, and what they are for."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import Field

from trapline.errors import ProcessorError, UsageError

from . import decoded, looking, stopping
from .guests import Access, Options, Timeout
from .machine_answers import CodeAnswer, MemoryAnswer, RegistersAnswer, StopAnswer, TablesAnswer, WalkAnswer
from .machines import Held, Machines
from .stored import Runs
from .threads import Work, Worker, in_thread
from .tools import Cursor, Limit

Number: TypeAlias = Annotated[
    str | None, Field(description="The machine, such as r1; the one that was started last if it is left out.")
]
At: TypeAlias = Annotated[
    str,
    Field(
        description="Exceptions: VECTORS [if CONDITION], such as `ud`, `pf,gp if cpl == 0` or `pf if rip == 0x101000`. "
        "A triple fault stops the guest anyway, and so does its end."
    ),
]
Address: TypeAlias = Annotated[
    str, Field(description="A number as 0x101000, a symbol as kmain or kmain+0x10, or a register as rsp.")
]
Given: TypeAlias = Annotated[
    Literal["forward", "discard", "inject"],
    Field(description="What becomes of the exception at which the guest is stopped."),
]
_A = TypeVar("_A")


class MachineTools:
    """The tools that hold a machine, run it on, and look at it."""

    def __init__(self, access: Access, runs: Runs, machines: Machines) -> None:
        self._access, self._runs, self._machines = access, runs, machines

    async def stop_at(
        self,
        guest: Annotated[str | None, Field(description="A file or sample:NAME, for a new machine.")] = None,
        at: At = "",
        machine: Annotated[str | None, Field(description="Or a machine that is held: it runs on.")] = None,
        exceptions: Annotated[str, Field(description="Of a new machine: which exceptions are intercepted.")] = "all",
        timeout: Timeout = 10,
        options: Options | None = None,
    ) -> StopAnswer:
        """Run a guest up to an exception and hold it there, before the exception is delivered.

        Memory and registers are as the instruction left them. At a triple fault they are those from before the reset.
        The machine is held for the tools registers, memory, disassemble, tables, page_walk, step and resume. A fifth
        one closes the oldest.
        """
        if (guest is None) == (machine is None):
            raise UsageError("give either a guest, for a new machine, or the machine that is to run on")
        if guest is None:
            return await self._with(machine, partial(stopping.catch, at=at, timeout=timeout))
        closed, worker = await self._machines.make_room(), Worker()
        answer = await in_thread(
            partial(
                stopping.start,
                worker=worker,
                access=self._access,
                runs=self._runs,
                machines=self._machines,
                stored=self._runs.new(guest),
                at=at,
                exceptions=exceptions,
                timeout=timeout,
                options=options or Options(),
            ),
            worker.start,
        )
        answer.note = None if closed is None else f"{closed}, the oldest machine, was closed; its trace is kept"
        return answer

    async def resume(
        self,
        machine: Number = None,
        verdict: Given = "forward",
        skip: Annotated[bool, Field(description="With discard: go on after the instruction, not at it.")] = False,
        vector: Annotated[str | None, Field(description="With inject: the exception to deliver instead.")] = None,
        error_code: Annotated[str | None, Field(description="With inject.")] = None,
        address: Annotated[str | None, Field(description="With inject of pf: the faulting address.")] = None,
        until: Annotated[str | None, Field(description="Also stop at this address or symbol.")] = None,
        timeout: Timeout = 10,
    ) -> StopAnswer:
        """Decide about the exception at which a machine is stopped, and run it until it stops again."""

        def go(work: Work, machines: Machines, held: Held) -> StopAnswer:
            place = None if until is None else looking.address_of(held, until)
            decision = stopping.decision_of(held, verdict, vector, error_code, address, skip)
            return stopping.resume(work, machines, held, decision, place, timeout)

        return await self._with(machine, go)

    async def step(
        self,
        machine: Number = None,
        count: Annotated[int, Field(ge=1, le=100, description="Instructions.")] = 1,
        over: Annotated[bool, Field(description="Run functions that are called to their end.")] = False,
        verdict: Given = "forward",
        timeout: Annotated[float, Field(gt=0, le=60, description="Seconds for each instruction.")] = 5,
    ) -> StopAnswer:
        """Execute instructions of a stopped machine one by one; an exception that is pending is delivered first."""

        def go(work: Work, machines: Machines, held: Held) -> StopAnswer:
            decision = stopping.decision_of(held, verdict, None, None, None, False)
            return stopping.step(work, machines, held, decision, count, over, timeout)

        return await self._with(machine, go)

    async def registers(
        self,
        machine: Number = None,
        fpu: Annotated[bool, Field(description="With the x87, MMX and SSE registers.")] = False,
    ) -> RegistersAnswer:
        """Show the registers of a stopped machine."""
        return await self._look(machine, partial(looking.registers, fpu=fpu))

    async def memory(
        self,
        address: Address,
        machine: Number = None,
        size: Annotated[int, Field(ge=1, le=2048, description="Bytes.")] = 128,
        physical: Annotated[bool, Field(description="The address is physical, not through the page tables.")] = False,
    ) -> MemoryAnswer:
        """Show memory of a stopped machine."""
        return await self._look(machine, partial(looking.memory, address=address, size=size, physical=physical))

    async def disassemble(
        self,
        machine: Number = None,
        address: Annotated[str | None, Field(description="As for memory; left out: CS:RIP.")] = None,
        count: Annotated[int, Field(ge=1, le=64, description="Instructions.")] = 16,
    ) -> CodeAnswer:
        """Disassemble code of a stopped machine, in the mode in which it runs."""
        return await self._look(machine, partial(looking.disassemble, address=address, count=count))

    async def tables(
        self,
        machine: Number = None,
        table: Annotated[
            Literal["idt", "gdt", "ldt", "tss"] | None, Field(description="One of them; left out: the start of all.")
        ] = None,
        limit: Limit = 40,
        cursor: Cursor = None,
    ) -> TablesAnswer:
        """Decode the tables of a stopped CPU: IDT (in real mode the vector table), GDT, LDT, the stacks of the TSS."""
        return await self._look(machine, partial(decoded.tables, name=table, limit=limit, cursor=cursor))

    async def page_walk(self, address: Address, machine: Number = None) -> WalkAnswer:
        """Show how a linear address becomes a physical one: each entry that the CPU reads, and which denies what."""
        return await self._look(machine, partial(decoded.page_walk, address=address))

    async def _look(self, number: str | None, look: Callable[[Held], _A]) -> _A:
        async with self._machines.using(number) as held:
            return await in_thread(lambda work: look(held), held.worker.start)

    async def _with(self, number: str | None, go: Callable[[Work, Machines, Held], _A]) -> _A:
        machines = self._machines
        async with machines.using(number) as held:
            try:
                return await in_thread(lambda work: go(work, machines, held), held.worker.start)
            except ProcessorError:
                machines.close(held.stored.number)
                raise
