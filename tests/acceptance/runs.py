"""A guest's run on QEMU alone and its run under trapline, with what tests compare of them."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from trapline.cli.main import main
from trapline.guests.qemu import qemu_options
from trapline.guests.recognise import recognise
from trapline.processors.qemu.programs import find_bios

QEMU = "qemu-system-x86_64"
TRAPLINE = (sys.executable, "-m", "trapline")
MEMORY = "128M"
DEBUG_EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4")
LIMIT = 240.0
"""Seconds after which a guest of ours hangs: none takes 20 on an idle machine, ten times that on a busy one."""
_SLACK = 30.0
_BLAME = re.compile(
    r"Cause:|come back from|came back from|in its handler of|again and again|arrives at vector|in service|A20 is off"
)
"""What text says only of a guest with a mistake."""


PROCESSORS = ("qemu", "unicorn")


class Run(NamedTuple):
    """What a finished run left."""

    status: int
    console: bytes
    words: str
    """What stood on stderr."""
    summary: dict[str, Any]
    """The summary as JSON, where it was asked for."""

    def counts(self) -> dict[int, int]:
        """Return how many exceptions were recorded, by vector."""
        return {row["vector"]: row["count"] for row in self.summary["counts"]}


@contextlib.contextmanager
def _files() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open files for stdout and stderr. QEMU writes a console byte by byte: each would wake the reader of a pipe."""
    with tempfile.TemporaryFile("a+b") as out, tempfile.TemporaryFile("a+b") as err:
        yield out, err


def _run(status: int, out: IO[bytes], err: IO[bytes]) -> Run:
    """Return what a run left in these files."""
    out.seek(0)
    err.seek(0)
    return Run(status, out.read(), err.read().decode(), {})


def on_qemu_alone(
    image: Path,
    *devices: str,
    reboots: bool = False,
    cpu: str = "qemu64",
    debug_exit: Sequence[str] = DEBUG_EXIT,
    firmware: Sequence[str] = (),
) -> Run:
    """Run a guest without trapline, on a CPU without SVM and with a BIOS as under trapline, or with UEFI firmware."""
    command = [QEMU, *devices, "-cpu", f"{cpu},-svm", "-m", MEMORY, *(firmware or ("-bios", str(find_bios())))]
    command += [*qemu_options(recognise(image), uefi=bool(firmware)), *debug_exit]
    command += ["-serial", "stdio", "-display", "none", *([] if reboots else ["-no-reboot"])]
    with _files() as (out, err):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=LIMIT, check=False)
        return _run(done.returncode, out, err)


def under_trapline(
    image: Path,
    exceptions: str,
    *options: str,
    processor: str = "qemu",
    machine: tuple[str, ...] = (),
    limit: float = LIMIT,
) -> Run:
    """Run a guest of ours with exceptions forced; the console is on stdout as a user has it.

    One that ends well must not be blamed.
    """
    words = arguments(image, exceptions, "--timeout", str(limit), *options, processor=processor, machine=machine)
    run = trapline(*words, limit=limit)
    assert run.status or not _BLAME.search(run.words), run.words
    return run


def trapline(*words: str, limit: float = LIMIT) -> Run:
    """Run a command of trapline in this process: trapline takes longer to load than most guests to run."""
    with _files() as (out, err):
        with _as_streams(out, err, limit + _SLACK):
            status = main(words)
        gc.unfreeze()  # `main` froze what there is, for a process that ends
        return _run(status, out, err)


@contextlib.contextmanager
def _as_streams(out_file: IO[bytes], err_file: IO[bytes], limit: float) -> Iterator[None]:
    """Let files be stdout and stderr of this process, which is ended should it take too long."""
    out, err = (io.TextIOWrapper(file, encoding="utf-8", write_through=True) for file in (out_file, err_file))
    signal.alarm(int(limit))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        signal.alarm(0)
        for stream in (out, err):
            stream.detach()


def summed_up(image: Path, exceptions: str, folder: Path, *options: str, **where: Any) -> Run:
    """Run as `under_trapline` with the summary as JSON; the console goes through a file."""
    file = folder / "console.txt"
    run = under_trapline(image, exceptions, "--json", "--force", "--console", str(file), *options, **where)
    assert run.console, f"no summary, but: {run.words}"
    summary = json.loads(run.console)
    assert run.status or blame(summary) == []
    return run._replace(console=file.read_bytes(), summary=summary)


def blame(summary: dict[str, Any]) -> list[Any]:
    """Return all that a summary says to be wrong with the guest."""
    return [summary[name] for name in ("explanation", "unreturned", "findings", "warnings") if summary[name]]


def command(
    image: Path, exceptions: str, *options: str, processor: str = "qemu", machine: tuple[str, ...] = ()
) -> list[str]:
    """Return the command line that runs a guest of ours; `machine` are options for QEMU."""
    return [*TRAPLINE, *arguments(image, exceptions, *options, processor=processor, machine=machine)]


def arguments(
    image: Path, exceptions: str, *options: str, processor: str = "qemu", machine: tuple[str, ...] = ()
) -> list[str]:
    """Return that command line without the program."""
    return [
        *("run", str(image), "-e", exceptions, "--memory", MEMORY, "--processor", processor, *options),
        *(("--", *machine) if machine else ()),
    ]


def assert_same(ours: bytes, plain: bytes) -> None:
    """Compare two consoles; the first line that differs is the place (tests/programs/README.md)."""
    if ours == plain:
        return
    pairs = zip([*ours.split(b"\n"), b"<end>"], [*plain.split(b"\n"), b"<end>"], strict=False)
    number, (found, expected) = next((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    raise AssertionError(
        f"line {number} of the console differs:\n"
        f"  plain     {expected.decode(errors='replace')}\n"
        f"  trapline  {found.decode(errors='replace')}"
    )


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the records of a JSONL file, each in its place; who is killed may leave half a last line."""
    text = file.read_text(encoding="ascii")
    whole = text[: text.rfind("\n") + 1]
    records = [fields for fields in map(json.loads, whole.splitlines()) if "type" not in fields]
    assert [record["seq"] for record in records] == list(range(len(records)))
    return records


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def children(process: int) -> list[int]:
    """Return the processes that a process has started and that still exist."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except FileNotFoundError:
        return []
    return found


def alive(process: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Started:
    """A run of trapline that goes on: with its QEMU, and a folder that holds all it may leave."""

    def __init__(
        self, arguments: list[str], folder: Path, prepare: Callable[[], object] = lambda: None, **options: Any
    ) -> None:
        """`prepare` is called in the new process."""
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._before = _named_memory()
        self.words_file = folder / "stderr.txt"
        with self.words_file.open("wb") as words:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                **{"stdout": subprocess.DEVNULL, "stderr": words, **options},
                env={**os.environ, "TMPDIR": str(self.scratch)},
                start_new_session=True,
                preexec_fn=lambda: (_as_from_a_terminal(), prepare()),
            )

    @property
    def qemu(self) -> int:
        """QEMU's process."""
        wait_for(lambda: children(self.process.pid) or self.process.poll() is not None, "a QEMU")
        (child,) = children(self.process.pid)
        return child

    @property
    def words(self) -> str:
        """What stands on stderr so far."""
        return self.words_file.read_text()

    def complaints(self) -> list[str]:
        """Return the lines in which trapline says that something is wrong."""
        return [line for line in self.words.splitlines() if line.startswith("trapline:")]

    def wait(self) -> int:
        """Return the exit status of trapline."""
        return self.process.wait(LIMIT)

    def assert_nothing_is_left(self, qemu: int | None = None) -> None:
        """Neither processes nor files: no socket, no shared memory, nothing temporary."""
        wait_for(lambda: qemu is None or not alive(qemu), "the end of QEMU")
        assert not alive(self.process.pid)
        assert list(self.scratch.iterdir()) == []
        assert _named_memory() <= self._before
        sockets = Path("/proc/net/unix").read_text()
        assert str(self.folder) not in sockets

    def close(self) -> None:
        """End it, if a test could not."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def _as_from_a_terminal() -> None:
    """Let signals do what they do by themselves: a job in the background inherits that some are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _named_memory() -> set[str]:
    """Return the names in shared memory that could be ours or QEMU's."""
    return {entry.name for entry in _entries(Path("/dev/shm"))}


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())
