"""What the file of records says of its run."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Protocol

from trapline.arch.bits import M64
from trapline.errors import TraplineError
from trapline.processors.qemu.launch import facts_of
from trapline.processors.qemu.programs import find_qemu
from trapline.symbols import Names, Symbols
from trapline.symbols.elf import build_id
from trapline.trace.condition import Condition
from trapline.trace.stored import Metadata, SymbolFile

from .opening import choose_accelerator
from .settings import QEMU, UNICORN, Settings

_SAMPLE: Final = "sample:"


class Started(Protocol):
    """A session whose processor was switched on."""

    settings: Settings
    names: Names
    description: str | None
    forced: int
    where: Condition | None
    processor_name: str
    why: str
    registers: bool


def run_metadata(session: Started) -> Metadata:
    """Return the metadata of a run, as far as it is known before its processor has started."""
    settings, names = session.settings, session.names
    guest = os.fspath(settings.guest) if isinstance(settings.guest, str | os.PathLike) else None
    return Metadata(
        guest=guest,
        description=session.description,
        command_line=list(sys.argv),
        exceptions=session.forced,
        where=None if session.where is None else session.where.text,
        processor=session.processor_name,
        why=session.why,
        versions={**_installed("trapline"), "python": platform.python_version(), **_version(session)},
        build_id=None if guest is None or guest.startswith(_SAMPLE) else build_id(Path(guest)),
        symbols=[_symbols(file, file.slide) for file in names.files] + [_symbols(file) for file in names.unplaced],
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        registers=session.registers,
    )


def _symbols(file: Symbols, slide: int | None = None) -> SymbolFile:
    return SymbolFile(
        name=file.name,
        slide=None if slide is None else hex(slide & M64),
        build_id=build_id(Path(file.name)),
    )


def _version(session: Started) -> dict[str, str]:
    if session.processor_name == UNICORN:
        return _installed(UNICORN)
    if session.processor_name == QEMU:
        return _qemu_version(session.settings)
    return {}


def _installed(name: str) -> dict[str, str]:
    try:
        return {name: version(name)}
    except PackageNotFoundError:  # it runs from its source
        return {}


def _qemu_version(settings: Settings) -> dict[str, str]:
    try:
        facts = facts_of(find_qemu(settings.qemu), choose_accelerator(settings.accel, settings.qemu))
    except TraplineError:  # it was there when it was started
        return {}
    return {QEMU: ".".join(map(str, facts.version))}
