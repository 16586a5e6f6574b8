"""One run wired together: a guest, a processor, the hypervisor and what is recorded of it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import IO, TYPE_CHECKING, NamedTuple

from trapline.errors import LaunchError, ProcessorLost, TraplineError
from trapline.processors.qemu.launch import find_qemu, open_qemu, qemu_version
from trapline.symbols import Names

if TYPE_CHECKING:
    from trapline.arch.vmcb import Vmcb
    from trapline.explain.blackbox import BlackBox
    from trapline.explain.explanation import Explanation
    from trapline.hypervisor.stop import Stop
    from trapline.hypervisor.vcpu import Vcpu
    from trapline.hypervisor.vm import Vm
    from trapline.machine.boot import Boot
    from trapline.machine.processor import Processor
    from trapline.scene import Scene
    from trapline.trace.columns import Records
    from trapline.trace.tally import VectorCount

_IDLE_AFTER = 0.4
"""Seconds after which a BIOS has mostly done what keeps us busy."""


_LOOK_EVERY = 0.25
"""Seconds between two looks whether the guest runs the Linux kernel that symbols were given of."""


class Ending(Enum):
    """How a run ended."""

    OFF = "power off"
    RESET = "reset"
    DEBUG_EXIT = "debug exit"
    SHUTDOWN = "shutdown (triple fault)"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    HALTED = "halted, and nothing can wake it"
    FAILED = "failed"


class Settings(NamedTuple):
    """What to run, and how."""

    mask: int | None
    """Exceptions to force; None: the process-wide parameter."""
    memory: int = 256 << 20
    """In bytes."""
    accelerator: str = "tcg"
    isolated: bool = False
    reboots: bool = False
    """A guest that resets the machine is started again."""
    timeout: float | None = None
    """In seconds."""
    boot: "Boot | None" = None
    """How the guest enters a bare machine in this process; None: it runs under QEMU."""
    output: Callable[[bytes], object] | None = None
    """Takes what a guest in this process writes to its console."""
    qemu: str | None = None
    guest_options: Sequence[str] = ()
    """QEMU options that load the guest."""
    user_options: Sequence[str] = ()
    """QEMU options of the user's."""
    console: Sequence[str] = ("-serial", "stdio")
    """QEMU options that say where the guest's console goes."""
    stdout: int | IO[bytes] | None = None
    """What QEMU gets as its standard output."""


class LastState(NamedTuple):
    """Where the guest was when it shut down, before the machine is reset."""

    cs: int
    rip: int
    rsp: int
    cpl: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    idt_base: int
    idt_limit: int
    vectoring: str | None


class Result(NamedTuple):
    """How a run ended, and what it saw."""

    ending: Ending
    detail: str
    exit_status: int | None
    """What the guest wrote to isa-debug-exit, as QEMU's exit status."""
    counts: "Sequence[VectorCount]"
    recorded: int
    """Exceptions recorded."""
    seconds: float
    exits: int
    """#VMEXITs decided in Python."""
    stopped: float
    """Seconds the guest stood still for them."""
    state: LastState | None = None
    """At a shutdown."""
    explanation: "Explanation | None" = None
    """Why the guest shut down."""
    scene: "Scene | None" = None
    """What stood around the instruction at a shutdown."""
    records: bytes = b""
    """Of the last exceptions, newest last."""
    error: TraplineError | None = None
    hints: Sequence[str] = ()
    """Devices that the guest looked for and its machine has not, in words."""

    @property
    def last(self) -> "Records":
        """The last exceptions as an array of records, newest last."""
        from trapline.trace.columns import view

        return view(self.records)


def run(
    settings: Settings,
    *,
    lines: IO[str] | None = None,
    live: Callable[[str], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
    names: Names | None = None,
    syntax: str = "intel",
) -> Result:
    """Run a guest until it ends, the time is up or somebody interrupts it.

    `lines` gets a JSON object a line for each exception, `live` a line of words. `meanwhile` is called while the
    guest runs, for what will be needed later and takes time. Errors before the guest runs are raised; what happens
    afterwards is part of the result, with all that was recorded. `names` knows addresses by names; a Linux kernel among
    them is placed while the guest runs. `syntax` is that of instructions, of `asm.disassembler.SYNTAXES`.
    """
    names = names or Names()
    started = time.monotonic()
    deadline = None if settings.timeout is None else started + settings.timeout
    processor = open_processor(settings)
    with processor:
        # Loaded only now, while QEMU starts.
        from trapline.explain.blackbox import BlackBox
        from trapline.hypervisor.recording import Recording
        from trapline.hypervisor.vm import Vm
        from trapline.scene import take
        from trapline.trace.recorder import Recorder

        if meanwhile is not None:
            idle = threading.Timer(_IDLE_AFTER, meanwhile)
            idle.daemon = True
            idle.start()
        lookup = names.lookup if names.files or names.unplaced else None
        recorder = Recorder(lines=lines, live=live, lookup=lookup)
        processor.on_records(recorder.add)
        enter = None if settings.boot is None else settings.boot.enter
        black_box = BlackBox(recorder.note if lines else None)

        vm = Vm(
            processor,
            mask=settings.mask,
            reboots=settings.reboots,
            enter=enter,
            recorders=(Recording(recorder.add_one, (black_box,)),),
        )
        with _placing(vm, names):
            ending, detail, error = _run(vm, deadline, settings.qemu, black_box)
        shut_down = ending is Ending.SHUTDOWN
        if shut_down or ending is Ending.HALTED:
            _place(vm.vcpu, names)
        return Result(
            ending,
            detail,
            processor.exit_status,
            recorder.tally.rows(),
            recorder.tally.total,
            time.monotonic() - started,
            processor.statistics.exits,
            processor.statistics.stopped,
            _last_state(processor.vmcb) if shut_down else None,
            _explanation(black_box, names, syntax) if shut_down else None,
            take(processor.vmcb, processor.gprs, processor.memory, names) if shut_down else None,
            recorder.last(),
            error,
            processor.hints,
        )


def open_processor(settings: Settings) -> "Processor":
    """Start the machine that the settings describe."""
    if settings.boot is None:
        return open_qemu(
            guest=settings.guest_options,
            memory=settings.memory,
            accelerator=settings.accelerator,
            isolated=settings.isolated,
            program=settings.qemu,
            options=settings.user_options,
            serial=settings.console,
            stdout=settings.stdout,
        )
    from trapline.processors.unicorn.processor import UnicornProcessor

    assert settings.output is not None, "a guest in this process needs a console"
    return UnicornProcessor(settings.boot, settings.memory, output=settings.output)


def _run(
    vm: "Vm", deadline: float | None, program: str | None, black_box: "BlackBox"
) -> tuple[Ending, str, TraplineError | None]:
    from trapline.hypervisor.stop import StopReason

    try:
        while True:
            stop = vm.run(deadline)
            if stop.reason is StopReason.SHUTDOWN:
                black_box.shut_down(vm.vcpu)
            if stop.reason is not StopReason.SHUTDOWN or not vm.reboots:
                ending, detail = _ending(stop, vm.processor)
                return ending, detail, None
            vm.processor.shutdown()
    except KeyboardInterrupt:
        return Ending.INTERRUPTED, "", None
    except LaunchError:
        qemu_version(find_qemu(program))  # says it better where the program is no QEMU at all
        raise
    except TraplineError as error:
        if isinstance(error, ProcessorLost) or vm.vcpu.resets:
            return Ending.FAILED, str(error), error
        raise


@contextlib.contextmanager
def _placing(vm: "Vm", names: Names) -> Iterator[None]:
    """Look from time to time where the guest's kernel lies, until that is known."""
    ended = threading.Event()

    def look_again() -> None:
        while names.unplaced and not ended.wait(_LOOK_EVERY):
            vm.call_while_stopped(lambda vcpu: _place(vcpu, names))

    thread = threading.Thread(target=look_again, daemon=True)
    if names.unplaced:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def _place(vcpu: "Vcpu", names: Names) -> None:
    from trapline.scene import kernel_values

    values = kernel_values(vcpu.processor.vmcb, vcpu.processor.memory) if names.unplaced else None
    if values is not None:
        names.place(values)


def _explanation(black_box: "BlackBox", names: Names, syntax: str) -> "Explanation | None":
    from trapline.asm.disassembler import instruction

    return black_box.explanation(name=names.words, disassemble=partial(instruction, syntax=syntax))


def _ending(stop: "Stop", processor: "Processor") -> tuple[Ending, str]:
    from trapline.hypervisor.stop import StopReason

    if stop.reason is StopReason.OFF:
        return Ending.OFF if processor.exit_status is None else Ending.DEBUG_EXIT, ""
    plain = {
        StopReason.RESET: Ending.RESET,
        StopReason.SHUTDOWN: Ending.SHUTDOWN,
        StopReason.TIMEOUT: Ending.TIMEOUT,
        StopReason.HALTED: Ending.HALTED,
    }
    return plain.get(stop.reason, Ending.FAILED), stop.detail


def _last_state(vmcb: "Vmcb") -> LastState:
    from trapline.arch.events import decode

    save = vmcb.save
    vectoring = decode(vmcb.control.exit_int_info)
    return LastState(
        save.cs.selector,
        save.rip,
        save.rsp,
        save.cpl,
        save.cr0,
        save.cr2,
        save.cr3,
        save.cr4,
        save.efer,
        save.idtr.base,
        save.idtr.limit,
        None if vectoring is None else str(vectoring),
    )
