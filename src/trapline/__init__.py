"""trapline: a hypervisor in Python that intercepts every exception of a guest before the guest sees it.

import trapline

run = trapline.run("kernel.elf", exceptions="all", timeout=10)
for exc in run.exceptions:
    print(exc)
"""

# Rooms, and which may import which. Arrows only point down; neighbours on one line do not know each other.
#
#   cli | testing                       command line: parses, calls api, prints · what tests use
#   debugger                            gdb, editors and agents: one machine that stops where they ask
#   api                                 run, Machine and what they return: the library's interface
#   session                             the parts of a run, connected
#   report                              the result of a run as one document: values, text, JSON
#   explain                             why an exception was raised, and why its delivery failed: evidence and proof
#   trace                               records, files, queries
#   hypervisor | processors | guests    KVM's role · what executes VMRUN · images, samples
#     | symbols                         · names and lines of addresses
#   asm                                 machine code written as Python, and guest code decoded
#   machine                             the boundary: protocols and plain data
#   arch                                the facts of the manuals, as data and pure functions
#   devices | typed                     a PC's chips, clocked from outside · what a user typed
#   errors | signals                    the tree of errors · signals that wait while a process is started
#
# `lint-imports` checks this, and tests/test_house.py runs it. Importing `trapline` loads this module alone: a name is
# loaded when it is used (PEP 562).

from importlib import import_module

TYPE_CHECKING = False  # a type checker knows it by its name; `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from trapline.api import (
        DISCARD,
        FORWARD,
        STOP,
        Machine,
        Stop,
        inject,
        run,
    )
    from trapline.arch.events import Event
    from trapline.arch.mask import ExceptionMask
    from trapline.arch.vectors import Vector
    from trapline.asm.disassembler import Instruction
    from trapline.errors import (
        FaultError,
        GuestFailed,
        GuestImageError,
        LaunchError,
        MissingExtra,
        MonitorDamaged,
        ProcessorError,
        ProcessorLost,
        ProcessorMissing,
        TraplineError,
        UsageError,
    )
    from trapline.explain.explanation import Explanation
    from trapline.hypervisor.exception import Decision, Verdict
    from trapline.hypervisor.parameters import force_intercept_exceptions_mask
    from trapline.hypervisor.stop import StopReason
    from trapline.machine.processor import Processor, Watchpoint
    from trapline.machine.registers import Registers
    from trapline.machine.scripted import ScriptedProcessor
    from trapline.report.crash import CrashContext, Frame
    from trapline.report.result import Ending
    from trapline.report.run import Run
    from trapline.session.cpu import Cpu, Memory
    from trapline.session.observing import ExceptionExit
    from trapline.symbols import Symbol
    from trapline.trace.condition import Condition
    from trapline.trace.exception_record import ExceptionRecord, Outcome
    from trapline.trace.exceptions import Exceptions
    from trapline.trace.files import Trace, open_trace

__version__ = "0.1.0"

_HOMES = {
    "trapline.api": "DISCARD FORWARD STOP Machine Stop inject run",
    "trapline.arch.events": "Event",
    "trapline.arch.mask": "ExceptionMask",
    "trapline.arch.vectors": "Vector",
    "trapline.asm.disassembler": "Instruction",
    "trapline.errors": "FaultError GuestFailed GuestImageError LaunchError MissingExtra MonitorDamaged ProcessorError "
    "ProcessorLost ProcessorMissing TraplineError UsageError",
    "trapline.explain.explanation": "Explanation",
    "trapline.hypervisor.exception": "Decision Verdict",
    "trapline.hypervisor.parameters": "force_intercept_exceptions_mask",
    "trapline.hypervisor.stop": "StopReason",
    "trapline.machine.processor": "Processor Watchpoint",
    "trapline.machine.scripted": "ScriptedProcessor",
    "trapline.session.cpu": "Cpu Memory",
    "trapline.report.crash": "CrashContext Frame",
    "trapline.session.observing": "ExceptionExit",
    "trapline.machine.registers": "Registers",
    "trapline.report.result": "Ending",
    "trapline.report.run": "Run",
    "trapline.symbols": "Symbol",
    "trapline.trace.condition": "Condition",
    "trapline.trace.exception_record": "ExceptionRecord Outcome",
    "trapline.trace.exceptions": "Exceptions",
    "trapline.trace.files": "Trace open_trace",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "DISCARD",
    "FORWARD",
    "STOP",
    "Condition",
    "Cpu",
    "CrashContext",
    "Decision",
    "Ending",
    "Event",
    "ExceptionExit",
    "ExceptionMask",
    "ExceptionRecord",
    "Exceptions",
    "Explanation",
    "FaultError",
    "Frame",
    "GuestFailed",
    "GuestImageError",
    "Instruction",
    "LaunchError",
    "Machine",
    "Memory",
    "MissingExtra",
    "MonitorDamaged",
    "Outcome",
    "Processor",
    "ProcessorError",
    "ProcessorLost",
    "ProcessorMissing",
    "Registers",
    "Run",
    "ScriptedProcessor",
    "Stop",
    "StopReason",
    "Symbol",
    "Trace",
    "TraplineError",
    "UsageError",
    "Vector",
    "Verdict",
    "Watchpoint",
    "__version__",
    "force_intercept_exceptions_mask",
    "inject",
    "open_trace",
    "run",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
