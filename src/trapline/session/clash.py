"""Whether the files of a run are different ones: what it writes must not be what it reads, nor be written twice."""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from trapline.errors import ProcessorMissing, UsageError
from trapline.processors.qemu.named_files import named_files
from trapline.processors.qemu.programs import PROGRAM, bios_candidates

from .settings import PathLike, Settings

Target: TypeAlias = PathLike | int
"""A file by its name, or an open one by its number."""

_SAMPLE: Final = "sample:"
_STREAMS: Final = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_NUMBERED: Final = re.compile(r"/dev/fd/([0-9]{1,9})|/proc/(?:self|thread-self|[0-9]+)/fd/([0-9]{1,9})", re.ASCII)
_MOST_LINKS: Final = 40


class File(NamedTuple):
    """A file of a run."""

    role: str
    """What it is to the run, as `-o` or `the guest`."""
    target: Target

    def __str__(self) -> str:
        stream = {1: "stdout", 2: "stderr"}.get(descriptor_of(self.target) or 0)
        if stream is not None:
            return stream
        return self.role if isinstance(self.target, int) else f"{self.role} {os.fspath(self.target)}"


def check_clashes(inputs: Iterable[File], outputs: Iterable[File]) -> None:
    """Raise UsageError where an output is an input or another output, by whatever name."""
    written = list(outputs)
    known: dict[object, File] = {}
    for file in inputs if written else ():
        for identity in _identities(file.target):
            known.setdefault(identity, file)
    for file in written:
        for identity in _identities(file.target):
            other = known.setdefault(identity, file)
            if other is not file:
                raise UsageError(f"{file} is the same file as {other}: it would be overwritten")


def check_streams(inputs: Iterable[File], outputs: Iterable[File]) -> None:
    """Raise UsageError where stdout or stderr of this process was redirected to a file that the run reads or writes."""
    streams = [File(name, number) for number, name in ((1, "stdout"), (2, "stderr")) if _is_kept(number)]
    files = [*inputs, *(file for file in outputs if descriptor_of(file.target) is None)] if streams else []
    for stream in streams:
        check_clashes(files, [stream])


def descriptor_of(target: Target) -> int | None:
    """Return the number of the open file of this process that a name such as /dev/stdout means; None: it means none."""
    if isinstance(target, int):
        return target
    name = os.fspath(target)
    for _ in range(_MOST_LINKS):
        if name in _STREAMS:
            return _STREAMS[name]
        match = _NUMBERED.fullmatch(name)
        if match is not None:
            own = name.startswith(("/dev", "/proc/self", "/proc/thread-self", f"/proc/{os.getpid()}/"))
            return int(match[1] or match[2]) if own else None
        try:
            name = os.path.join(os.path.dirname(name), os.readlink(name))  # noqa: PTH115, PTH118, PTH120
        except (OSError, ValueError):
            return None
    return None


def output_file(role: str, outlet: object) -> Iterator[File]:
    """Yield the file of an outlet: its name, or the number of an open file; nothing for a function and without one."""
    if isinstance(outlet, str | os.PathLike):
        yield File(role, outlet)
    elif isinstance(number := _number(outlet), int):
        yield File(role, number)


def input_files(settings: Settings) -> Iterator[File]:
    """Yield all files that a run may read, whether they exist or not."""
    guest = settings.guest
    if isinstance(guest, str | os.PathLike) and not os.fspath(guest).startswith(_SAMPLE):
        yield File("the guest", guest)
    if settings.initrd is not None:
        yield File("--initrd", settings.initrd)
    yield from symbol_files(settings.symbols)
    for name in named_files(settings.qemu_options):
        yield File("QEMU's file", name)
    for named in (None, *(value for option, value in pairwise(settings.qemu_options) if option.endswith("-bios"))):
        for path in bios_candidates(named):
            yield File("the BIOS", path)
    from trapline.processors.qemu.uefi import find_uefi  # most commands do not come here

    with contextlib.suppress(ProcessorMissing):
        for path in find_uefi():
            yield File("UEFI firmware", path)
    qemu = shutil.which(settings.qemu or PROGRAM)
    if qemu is not None:
        yield File("QEMU", qemu)


def symbol_files(options: Iterable[str]) -> Iterator[File]:
    """Yield the files of `--symbols`."""
    for option in options:
        yield File("--symbols", option)
        yield File("--symbols", option.rpartition("@")[0] or option)


def _number(file: object) -> int | None:
    try:
        number = file.fileno()  # type: ignore[attr-defined]  # of a file; others have none
    except (AttributeError, OSError, ValueError):
        return None
    return number if isinstance(number, int) else None


def _is_kept(number: int) -> bool:
    """Return whether what is written to an open file of this process is kept: it is neither a terminal nor a pipe."""
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _identities(target: Target) -> Iterator[object]:
    """Yield what is the same for all names of a file. Character devices, as terminals are, may be used twice."""
    number = descriptor_of(target)
    if number is not None:
        yield "descriptor", number
    try:
        status = Path(target).stat() if number is None else os.fstat(number)  # type: ignore[arg-type]
    except (OSError, ValueError):
        yield from _identity_of_missing(target)
        return
    if stat.S_ISBLK(status.st_mode):
        yield "device", status.st_rdev
    elif not stat.S_ISCHR(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        yield status.st_dev, status.st_ino


def _identity_of_missing(target: Target) -> Iterator[object]:
    if isinstance(target, int):
        return
    try:
        path = Path(os.path.realpath(target))
        status = path.parent.stat()
    except (OSError, ValueError):
        return
    yield status.st_dev, status.st_ino, path.name
