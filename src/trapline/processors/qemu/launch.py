"""Check what was asked of QEMU, and start a machine as a processor."""

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trapline.errors import LaunchError, TraplineError, UsageError

from . import layout
from .command import Descriptors, UserOptions, command, read_user_options
from .facts import Facts, Key, key_of, load, store
from .flash import Chip
from .kvm import nested_svm_missing
from .process import NO_FILES, Files, QemuProcess
from .programs import find_bios, find_qemu, qemu_version

if TYPE_CHECKING:
    from .board_cpu import BoardCpu
    from .firmware import Firmware
    from .machine import QemuMachine
    from .processor import QemuProcessor

_NO_MEMORY: Final = "cannot allocate memory"
_PROBED: Final = 16 << 20
"""Bytes of memory of a machine without a guest."""
_LARGEST: Final = 8 << 30
_SMALLEST: Final = 4 << 20
_LARGEST_BIOS: Final = 16 << 20
"""Bytes of an image, where QEMU has room below 4 GiB."""


def blamed(error: LaunchError, program: str | None, options: Sequence[str]) -> TraplineError:
    """Return the error that says best why a machine did not start.

    It is a UsageError where the named program is not QEMU, and where QEMU ended by itself for what the user's options
    say, not for want of memory.
    """
    try:
        qemu_version(find_qemu(program))
    except LaunchError as clearer:
        return clearer if program is None else UsageError(str(clearer.args[0]))
    if options and error.returncode in (0, 1) and _NO_MEMORY not in error.output.lower():
        return UsageError(str(error.args[0]))
    return error


def facts_of(program: str, accelerator: str = "tcg") -> Facts:
    """Return what a QEMU does: as it is kept, or else found out now, which takes less than a second.

    Raises LaunchError where it does not start.
    """
    try:
        key = key_of(program, accelerator)
    except OSError as error:
        raise LaunchError(f"{program}: {error.strerror}") from error
    return _facts(key, program, accelerator)


@functools.cache
def _facts(key: Key, program: str, accelerator: str) -> Facts:
    kept = load(key)
    if kept is not None:
        return kept
    from .placement import load_monitor
    from .probe import probe

    user = read_user_options(())
    qemu, _ = _start(program, ["-nodefaults"], _PROBED, accelerator, user, (), NO_FILES, isolated=False)
    with contextlib.closing(qemu):
        load_monitor(qemu.monitor)
        try:
            facts = probe(qemu, accelerator)
        except LaunchError:
            qemu_version(program)  # says it better where the program is not QEMU at all
            raise
    store(key, facts)
    return facts


def try_out(program: str | None = None, accelerator: str = "tcg") -> str:
    """Start a machine without a guest until its monitor has SVM; returns a sentence about what was seen."""
    with open_qemu(guest=["-nodefaults"], memory=_PROBED, program=program, accelerator=accelerator) as processor:
        processor.run(None)  # ends with the reset that switching on is, or with an error
    return "the monitor starts and has SVM"


def check_accelerator(accelerator: str) -> None:
    """Raise UsageError when this machine cannot run the monitor with an accelerator."""
    if accelerator == "kvm":
        missing = nested_svm_missing()
        if missing is not None:
            raise UsageError(f"--accel kvm cannot be used: {missing}; --accel tcg needs no hardware")


def check_isolation(facts: Facts) -> None:
    """Raise UsageError for a QEMU whose guests would leave their nested page tables."""
    if not facts.nests_in_real_mode:
        numbers = ".".join(map(str, facts.version))
        raise UsageError(
            f"--isolate cannot be used: QEMU {numbers} does not walk nested page tables while the guest's paging is off"
        )


def check_several(user: UserOptions, facts: Facts, accelerator: str) -> None:
    """Raise UsageError where several CPUs cannot be had."""
    if accelerator != "tcg":
        raise UsageError(f"-smp {user.cpus}: a guest has one CPU with --accel {accelerator} so far; use --accel tcg")
    if not facts.nests_in_real_mode:
        numbers = ".".join(map(str, facts.version))
        raise UsageError(
            f"-smp {user.cpus}: QEMU {numbers} does not walk nested page tables while the guest's paging is off, which "
            "several CPUs need here; use one CPU or another QEMU"
        )


def open_qemu(
    *,
    guest: Sequence[str],
    memory: int,
    accelerator: str = "tcg",
    isolated: bool = False,
    uefi: bool = False,
    program: str | None = None,
    options: Sequence[str] = (),
    serial: Sequence[str] = (),
    files: Files = NO_FILES,
) -> "QemuProcessor | BoardCpu":
    """Start QEMU with the guest's options and the user's, and return it as a processor, or the boot CPU of a board.

    `memory` is the guest's RAM in bytes. `isolated`: hide and protect the monitor by nested paging. `uefi`: start UEFI
    firmware, unless the user's options name another. `serial` are QEMU options that say where the console goes, `files`
    are those of this process that they need.
    """
    if memory % (1 << 20) or not _SMALLEST <= memory <= _LARGEST:
        raise UsageError(f"--memory: a guest has 4M to {_LARGEST >> 30}G of memory, in whole MiB")
    user = read_user_options(options)
    if uefi and user.flash is None and user.bios is None:
        from .uefi import find_uefi

        found = find_uefi()
        user = user._replace(flash=Chip(str(found.code), variables=str(found.variables)))
    if isolated and "q35" in user.machine:
        raise UsageError("--isolate needs a pc machine: a q35's MMCONFIG reaches the monitor's device")
    if accelerator == "kvm" and user.asks_for_smm:
        raise UsageError("-machine smm=on cannot be used with --accel kvm, whose guests run without SMM here")
    check_accelerator(accelerator)
    path = find_qemu(program)
    facts = facts_of(path, accelerator)
    if isolated:
        check_isolation(facts)
    cpus = user.cpus
    if cpus > 1:
        check_several(user, facts, accelerator)
    qemu, firmware = _start(path, guest, memory, accelerator, user, serial, files, isolated=isolated)
    with contextlib.ExitStack() as undo:
        undo.callback(qemu.close)
        # All of this is loaded and done while QEMU starts.
        from .hostmem import ProcessMemory
        from .machine import QemuMachine
        from .placement import load_monitor
        from .processor import QemuProcessor
        from .ram import Ram

        load_monitor(qemu.monitor, others=cpus - 1)
        mailbox = layout.Mailbox.from_buffer(qemu.monitor, layout.MAILBOX_AT)
        mailbox.token = int.from_bytes(os.urandom(8), "little") | 1
        mailbox.open_shadow = 1
        block = ProcessMemory(qemu.process.pid, memory)
        ram = Ram(block, user.machine, firmware.bios)
        machine = QemuMachine(
            qemu, firmware, block, ram, accelerator=accelerator, isolated=isolated, facts=facts, cpus=cpus
        )
        processor = _first_of(machine, cpus) if cpus > 1 else QemuProcessor(machine)
        undo.pop_all()
    return processor


def _first_of(machine: "QemuMachine", cpus: int) -> "BoardCpu":
    """Return the boot CPU of a board."""
    from .board import QemuBoard

    return QemuBoard(machine, cpus).cpus[0]


def _read_firmware(user: UserOptions, *, unlock_svm: bool) -> "Firmware":
    from .firmware import wrap

    path = Path(user.flash.file) if user.flash else find_bios(user.bios)
    image = _read(path)
    try:
        return wrap(image, unlock_svm=unlock_svm, flash=user.flash is not None)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BIOS + 1)
    except OSError as error:
        raise UsageError(f"the firmware {path}: {error.strerror}") from error


def _start(
    program: str,
    guest: Sequence[str],
    memory: int,
    accelerator: str,
    user: UserOptions,
    serial: Sequence[str],
    files: Files,
    *,
    isolated: bool,
) -> "tuple[QemuProcess, Firmware]":
    tcg = accelerator == "tcg"
    firmware = _read_firmware(user, unlock_svm=tcg)
    variables = _read(Path(user.flash.variables)) if user.flash and user.flash.variables else b""

    def arguments(descriptors: Descriptors) -> list[str]:
        return command(
            program,
            accelerator=accelerator,
            memory=memory,
            descriptors=descriptors,
            guest=guest,
            user=user,
            hide_svm=tcg,
            isolated=isolated,
            serial=serial,
        )

    image = firmware.image
    return QemuProcess(
        arguments, monitor=layout.size_for(user.cpus), firmware=image, variables=variables, files=files
    ), firmware
