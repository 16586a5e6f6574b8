"""Requests about the stopped guest."""

from collections.abc import Sequence
from typing import Final

from trapline.debugger.target import Target
from trapline.errors import UsageError

from . import arguments, bodies, commands, frames, memory
from .debuggee import REGISTERS
from .exceptions import exception_info
from .messages import Event
from .scopes import scopes_of
from .state import Done, State
from .stops import THREAD
from .variables import Children, Item

_NAMES: Final = 50
"""Completions that are offered."""


def threads(state: State, asked: arguments.Arguments) -> Done:
    """Tell which CPUs there are."""
    cpus = () if state.debuggee is None else state.debuggee.machine.cpus
    return Done(bodies.Threads([bodies.Thread(cpu.number + THREAD, f"CPU {cpu.number}") for cpu in cpus]))


def stack_trace(state: State, asked: arguments.StackTrace) -> Done:
    """Tell where a CPU of the guest is, and its callers."""
    state.guest.target.select(asked.thread_id - THREAD if asked.thread_id else None)
    return Done(frames.stack_trace(asked, state.guest, state.base))


def scopes(state: State, asked: arguments.Scopes) -> Done:
    """Tell which groups of values there are."""
    target, add, cpu = state.guest.target, state.guest.containers.add, frames.cpu_of(asked.frame_id)
    target.select(cpu)
    found = [
        (name, add(_of_cpu(target, cpu, children)), costly, hint)
        for name, children, costly, hint in scopes_of(state.guest)
    ]
    return Done(bodies.Scopes([bodies.Scope(*each) for each in found]))


def _of_cpu(target: Target, cpu: int, children: Children) -> Children:
    """Return what reads the same of a CPU, also after another one was selected."""

    def read() -> Sequence[Item]:
        target.select(cpu)
        return children()

    return read


def variables(state: State, asked: arguments.Variables) -> Done:
    """Tell the values of a group."""
    return Done(state.guest.containers.answer(asked))


def set_variable(state: State, asked: arguments.SetVariable) -> Done:
    """Set a value of a group."""
    guest = state.guest
    item = guest.containers.item(asked.variables_reference, asked.name)
    if item.expression is None:
        raise UsageError(f"{asked.name} cannot be set")
    guest.store(item.expression, guest.evaluate(asked.value, wide=True).number)
    return Done(bodies.Changed(guest.containers.item(asked.variables_reference, asked.name).value))


def set_expression(state: State, asked: arguments.SetExpression) -> Done:
    """Set a register, or memory."""
    guest = state.guest
    frames.select(guest, asked.frame_id)
    guest.store(asked.expression, guest.evaluate(asked.value, wide=True).number)
    return Done(bodies.Changed(commands.evaluate(asked.expression, guest).result))


def evaluate(state: State, asked: arguments.Evaluate) -> Done:
    """Do what was typed, or tell the value of an expression."""
    guest = state.guest
    frames.select(guest, asked.frame_id)
    if asked.context not in (None, "repl"):  # the mouse over a word, a watch: nothing may change
        return Done(commands.look(asked.expression, guest))
    before = guest.target.cpu.address
    body = commands.evaluate(asked.expression, guest)
    changed = "=" in asked.expression or guest.target.cpu.address != before
    return Done(body, [Event("invalidated", bodies.Invalidated(["stacks", "variables"]))] if changed else [])


def completions(state: State, asked: arguments.Completions) -> Done:
    """Offer commands and registers."""
    typed = asked.text[: max(0, asked.column - 1)]
    word = typed[max(typed.rfind(each) for each in " [+-*$=") + 1 :]
    start = len(typed) - len(word)
    known = (*(commands.VERBS if word == typed else ()), *REGISTERS)
    found = [name for name in known if name.startswith(word)]
    return Done(bodies.CompletionItems([bodies.CompletionItem(name, start, len(word)) for name in found[:_NAMES]]))


def info(state: State, asked: arguments.Arguments) -> Done:
    """Explain the exception, or the shutdown."""
    return Done(exception_info(state.guest.target))


def read_memory(state: State, asked: arguments.ReadMemory) -> Done:
    """Read memory."""
    return Done(memory.read(asked, state.guest))


def write_memory(state: State, asked: arguments.WriteMemory) -> Done:
    """Write memory."""
    return Done(memory.write(asked, state.guest))


def disassemble(state: State, asked: arguments.Disassemble) -> Done:
    """Disassemble code."""
    return Done(memory.disassembled(asked, state.guest))


def source(state: State, asked: arguments.SourceContent) -> Done:
    """Tell the text of a source."""
    of = asked.source or arguments.Source()
    return Done(bodies.SourceContent(state.guest.sources.text(of.source_reference or asked.source_reference, of.path)))
