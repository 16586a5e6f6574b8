"""Opens the processor that the settings describe."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from trapline.errors import LaunchError, ProcessorMissing, TraplineError, UsageError
from trapline.guests.guest import Guest, GuestKind
from trapline.guests.qemu import in_file, qemu_options
from trapline.machine.board import Board
from trapline.machine.boot import Boot
from trapline.machine.processor import Processor
from trapline.processors.qemu.command import read_user_options, takes_stdio
from trapline.processors.qemu.launch import blamed, facts_of, open_qemu
from trapline.processors.qemu.process import Files
from trapline.processors.qemu.programs import find_qemu
from trapline.symbols import Names
from trapline.symbols.loaded import LoadedImages

from .choose import choose
from .console import Console
from .extras import require
from .serial import SerialLine
from .settings import AUTO, PROCESSORS, QEMU, UNICORN, Settings, find_guest, parse_memory
from .symbols import open_names

if TYPE_CHECKING:
    from trapline.processors.qemu.board_cpu import BoardCpu
    from trapline.processors.qemu.processor import QemuProcessor

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A processor with its guest."""

    processor: Processor
    name: str
    """`unicorn` or `qemu`, or the name of a processor of the user's own."""
    why: str
    """Why it was chosen."""
    boot: Boot | None
    """How the guest starts on Unicorn; None: firmware starts it, or the processor is the user's own."""
    names: Names
    description: str | None
    """What the guest was recognised as; None: QEMU's options name it, or the user's own processor has it."""
    receive: Callable[[bytes], None] | None
    """Sends bytes to the console of the stopped guest; None: the console does it, or takes no input."""
    board: Board | None = None
    """The machine, where it has several CPUs; `processor` is the boot CPU."""
    images: LoadedImages | None = None
    """What a guest with UEFI firmware has loaded."""
    rest: Callable[[], None] = lambda: None
    """Tells the processor that its guest stands still for long from now on."""


def open_processor(
    undo: contextlib.ExitStack, settings: Settings, console: Console, inherited: IO[bytes] | None
) -> Opened:
    """Switch on the machine that the settings describe; `undo` closes it.

    `inherited` becomes QEMU's standard output, with the guest's console. Raises UsageError, GuestImageError and
    LaunchError.
    """
    if not isinstance(settings.processor, str):
        _check_own_processor(settings)
        own = undo.enter_context(settings.processor)
        names = open_names(settings.symbols, None)
        return Opened(own, own.capabilities.name, "your own processor", None, names, None, None)
    if settings.processor not in PROCESSORS:
        raise UsageError(f"--processor {settings.processor}: choose one of {', '.join(PROCESSORS)}")
    guest = find_guest(settings)
    description = None if guest is None else guest.description
    names = open_names(settings.symbols, guest)
    choice = choose(settings, guest)
    if choice.boot is None:
        if settings.schedule is not None:
            raise UsageError("--schedule is for guests in this process: QEMU's CPUs take no turns")
        with blaming(settings):
            qemu = _open_qemu(undo, settings, guest, console, inherited)
        program = guest.path.name if guest is not None and guest.kind is GuestKind.EFI else None
        images = LoadedImages(names, program) if qemu.has_uefi else None
        return Opened(qemu, QEMU, choice.why, None, names, description, None, qemu.board, images, qemu.let_rest)
    memory = parse_memory(settings.memory)
    opened = UNICORN, choice.why, choice.boot, names, description
    cpus = _cpus(settings, guest)
    if cpus == 1 and settings.schedule is None:
        from trapline.processors.unicorn.processor import UnicornProcessor

        unicorn = undo.enter_context(UnicornProcessor(choice.boot, memory, output=console.take))
        return Opened(unicorn, *opened, unicorn.receive)
    from trapline.processors.unicorn.board import UnicornBoard

    board = UnicornBoard(choice.boot, memory, cpus=cpus, output=console.take, seed=settings.schedule)
    first = undo.enter_context(board.cpus[0])
    return Opened(first, *opened, first.receive, board)


@contextlib.contextmanager
def blaming(settings: Settings) -> Iterator[None]:
    """Raise a UsageError in place of a LaunchError where the program or options that the user named are to blame."""
    try:
        yield
    except ProcessorMissing:
        raise
    except LaunchError as error:
        raise blamed(error, settings.qemu, settings.qemu_options) from error


def _open_qemu(
    undo: contextlib.ExitStack, settings: Settings, guest: Guest | None, console: Console, inherited: IO[bytes] | None
) -> "QemuProcessor | BoardCpu":
    require("qemu", "qemu.qmp")
    guest = None if guest is None else undo.enter_context(in_file(guest))
    uefi = settings.uefi or (guest is not None and guest.uefi)
    options = _guest_options(settings, guest, uefi=uefi)
    start = partial(
        open_qemu,
        guest=options,
        memory=parse_memory(settings.memory),
        accelerator=choose_accelerator(settings.accel, settings.qemu),
        isolated=settings.isolate,
        uefi=uefi,
        program=settings.qemu,
        options=_with_cpus(settings, guest),
    )
    # Only one of QEMU's devices can have its standard input and output.
    shared = takes_stdio(settings.qemu_options) and not read_user_options(settings.qemu_options).own_serial
    if inherited is not None and not shared:
        processor = start(serial=["-serial", "stdio"], files=Files(stdout=inherited))
        undo.enter_context(processor)
        return processor
    line = SerialLine(settings.qemu_options)
    undo.callback(line.close)  # after QEMU
    try:
        processor = start(
            serial=line.serial, files=line.files if inherited is None else line.files._replace(stdout=inherited)
        )
    finally:
        line.close_other_end()
    line.connect(console)
    undo.enter_context(processor)
    return processor


def _cpus(settings: Settings, guest: Guest | None) -> int:
    """Return how many CPUs the guest is to have."""
    if settings.cpus is not None:
        return settings.cpus
    return 1 if guest is None else guest.cpus


def _with_cpus(settings: Settings, guest: Guest | None) -> Sequence[str]:
    """Return QEMU's options with the number of CPUs; raises UsageError where both have one."""
    cpus, given = _cpus(settings, guest), "-smp" in settings.qemu_options
    if given and settings.cpus is not None:
        raise UsageError(f"--cpus {cpus} and -smp both say how many CPUs the guest has: give one of them")
    return settings.qemu_options if given or cpus == 1 else [*settings.qemu_options, "-smp", str(cpus)]


def _check_own_processor(settings: Settings) -> None:
    """Refuse settings that a processor of the user's own has already decided."""
    defaults = Settings()
    for name in (
        *(
            "guest",
            "memory",
            "cpus",
            "schedule",
            "entry_mode",
            "load_address",
            "media",
            "uefi",
            "initrd",
            "append",
            "isolate",
        ),
        *("accel", "qemu", "qemu_options"),
    ):
        if getattr(settings, name) != getattr(defaults, name):
            raise UsageError(f"{name} cannot be given with your own processor, which has its guest already")


def _guest_options(settings: Settings, guest: Guest | None, *, uefi: bool) -> list[str]:
    if guest is not None:
        initrd = None if settings.initrd is None else Path(settings.initrd)
        return qemu_options(guest, initrd=initrd, append=settings.append, uefi=uefi)
    if settings.initrd is not None or settings.append is not None:
        raise UsageError("--initrd and --append need a GUEST that is a Linux or multiboot kernel")
    if not settings.qemu_options and not uefi:
        raise UsageError("nothing to run: name a GUEST, or give QEMU options after --")
    return []


def choose_accelerator(wanted: str, program: str | None) -> str:
    """Return the accelerator: for `auto` KVM where a guest has been seen to run with it."""
    from trapline.processors.qemu.kvm import nested_svm_missing

    if wanted != AUTO:
        return wanted
    if nested_svm_missing() is not None:
        return "tcg"
    path = find_qemu(program)
    try:
        facts_of(path, "kvm")
    except TraplineError as error:
        log.warning("KVM is not used, for it does not work here: %s", error)
        return "tcg"
    return "kvm"
