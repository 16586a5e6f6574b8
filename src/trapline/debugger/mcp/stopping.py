"""The tools that run a machine up to where it stops again: `stop_at`, `step` and `resume`."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from trapline.api import DISCARD, FORWARD, Machine, Stop, inject
from trapline.arch.mask import parse_some
from trapline.arch.vectors import Vector, bits
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.hypervisor.exception import Decision
from trapline.hypervisor.stop import StopReason
from trapline.typed import integer, shortened

from .answers import NextStep, Place
from .guests import Access, Options, keywords
from .machine_answers import StopAnswer
from .machines import Held, Machines
from .stored import Runs, Stored
from .threads import Work, Worker
from .told import callers, code_lines, raised, tail, why

KEPT: Final = 100_000
"""Records of a held machine that are in memory."""
_AROUND: Final = 5
"""Instructions that are shown at a stop."""


def start(
    work: Work,
    worker: Worker,
    access: Access,
    runs: Runs,
    machines: Machines,
    stored: Stored,
    at: str,
    exceptions: str,
    timeout: float,
    options: Options,
) -> StopAnswer:
    """Switch a machine on and run it to where it is to stop. Raises TraplineError."""
    try:
        name, chosen = keywords(access, stored.guest, options)
        chosen["exceptions"], chosen["output"], chosen["keep"] = exceptions, stored.path, KEPT
        held = Held(stored, Machine(name, **chosen), worker)
    except BaseException:
        runs.drop(stored)
        worker.end()
        raise
    try:
        held.target = Target(held.machine)
        if at.strip():
            held.target.catch(at)
        stop = _running(work, held, partial(held.target.resume, timeout=timeout))
        work.check()
        machines.add(held)
        return _answer(machines, held, stop)
    except BaseException:
        machines.remove(held)
        runs.drop(stored)
        held.switch_off()
        raise


def catch(work: Work, machines: Machines, held: Held, at: str, timeout: float) -> StopAnswer:
    """Let a machine stop at other exceptions from now on, and run it. Raises TraplineError."""
    target = held.target
    before = target.catches
    if at.strip():
        target.catch(at)
    for each in before:
        target.release(each)
    return resume(work, machines, held, FORWARD, None, timeout)


def resume(
    work: Work, machines: Machines, held: Held, decision: Decision, until: int | None, timeout: float
) -> StopAnswer:
    """Run a machine on. Raises TraplineError."""
    with contextlib.nullcontext() if until is None else held.machine.breakpoints.temporary(until):
        stop = _running(work, held, partial(held.target.resume, decision, timeout=timeout))
    return _answer(machines, held, stop)


def step(
    work: Work, machines: Machines, held: Held, decision: Decision, count: int, over: bool, timeout: float
) -> StopAnswer:
    """Step a machine, until something else stops it. Raises TraplineError."""
    target, executed = held.target, list[str]()
    for number in range(count):
        pending = target.stop.exception
        executed += (
            code_lines(target.cpu.disassemble()) if pending is None else [f"{pending.vector.mnemonic} is delivered"]
        )
        move = target.step_over if over else target.step
        stop = _running(work, held, partial(move, decision if number == 0 else FORWARD, timeout=timeout))
        work.check()
        if stop.reason is not StopReason.STEP:
            break
    return _answer(machines, held, target.stop, executed)


def decision_of(
    held: Held, verdict: str, vector: str | None, error_code: str | None, address: str | None, skip: bool
) -> Decision:
    """Return what becomes of the exception at which a machine is stopped. Raises UsageError."""
    if verdict != "inject" and (vector, error_code, address) != (None, None, None):
        raise UsageError(f"vector, error_code and address are for the verdict inject, not for {verdict}")
    if skip and verdict != "discard":
        raise UsageError("skip is for the verdict discard")
    if verdict != "forward" and held.target.stop.exception is None:
        raise UsageError(f"{verdict}: the machine is not stopped at an exception; resume it without a verdict")
    if verdict == "inject":
        if vector is None:
            raise UsageError("inject needs a vector, such as gp")
        code = None if error_code is None else integer(error_code, "error_code", 0, (1 << 32) - 1)
        at = None if address is None else integer(address, "address", 0, (1 << 64) - 1)
        return inject(_vector(vector), code, at)
    if skip:
        held.target.skip()
    return DISCARD if verdict == "discard" else FORWARD


def _vector(text: str) -> Vector:
    found = list(bits(parse_some(text)))
    if len(found) != 1:
        raise UsageError(f"vector {shortened(text)}: one exception, such as gp")
    return Vector(found[0])


def _running(work: Work, held: Held, move: Callable[[], Stop]) -> Stop:
    work.interrupted_by(held.machine.interrupt)
    try:
        return move()
    finally:
        work.interrupted_by(None)
        held.target.forget_interrupt()


def _answer(machines: Machines, held: Held, stop: Stop, executed: list[str] | None = None) -> StopAnswer:
    target, number = held.target, held.stored.number
    gone = held.is_gone
    output = held.machine.console.output
    new, held.told = output[held.told :], len(output)
    explanation = None if gone else target.explain()
    answer = StopAnswer(
        machine=number,
        held=not gone,
        reason=stop.reason.name.lower(),
        text=stop.reason.value,
        exception=None if stop.exception is None else raised(stop.exception),
        why=None if explanation is None else why("why it was raised", explanation),
        where=None if gone else _where(target),
        executed=executed,
        console=tail(new),
        catches=[each.at.text for each in target.catches],
        next=list(_next(number, stop, gone)),
    )
    if gone:
        machines.close(number)
    return answer


def _where(target: Target) -> Place:
    cpu = target.cpu
    symbol = cpu.symbol
    return Place(
        rip=f"{cpu.address:#x}",
        place=None if symbol is None else str(symbol),
        code=code_lines(cpu.disassemble(_AROUND), cpu.address),
        callers=callers(cpu.backtrace()),
    )


def _next(number: str, stop: Stop, gone: bool) -> Iterator[NextStep]:
    machine = {"machine": number}
    exception = stop.exception
    if gone:
        yield NextStep(tool="exceptions", arguments={"trace": number}, why="lists the exceptions of the run")
        return
    if exception is not None and exception.address is not None:
        arguments = {**machine, "address": f"{exception.address:#x}"}
        yield NextStep(tool="page_walk", arguments=arguments, why="shows the entries that deny the access")
    if stop.reason is StopReason.SHUTDOWN:
        yield NextStep(tool="tables", arguments=machine, why="shows IDT, GDT and TSS as the CPU had them")
    yield NextStep(tool="registers", arguments=machine, why="shows the state of the CPU")
    if exception is not None:
        yield NextStep(tool="step", arguments=machine, why="delivers it: the guest stops in its handler")
    if stop.reason is StopReason.TIMEOUT:
        yield NextStep(tool="resume", arguments=machine, why="lets it run on")
