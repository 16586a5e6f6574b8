"""The guests of one test, and their runs for the test's report."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, Unpack

from trapline.api import Machine, run
from trapline.errors import MissingExtra, ProcessorMissing, TraplineError
from trapline.report.result import Ending
from trapline.report.run import Run
from trapline.report.text import headline, report
from trapline.session.settings import MachineOptions, PathLike

_LINES: Final = 20
"""Lines of a guest's console that are shown."""


class Kept(NamedTuple):
    """A run of a test."""

    guest: str
    run: Run
    trace: Path | None
    """The file with its records, where there is one."""

    def text(self, shown: str = "") -> str:
        """Return the report of the run, shortened if `shown` has it already."""
        lines = [f"guest {self.guest}"]
        known = "\n".join(report(self.run))
        lines.append(headline(self.run) if known in shown else known)
        if self.trace is not None:
            lines.append(f"trace: {self.trace}")
        if console := _printable(self.run.console).splitlines()[-_LINES:]:
            lines += ["the last lines of its console", *(f"  {line}" for line in console)]
        return "\n".join(lines)


class Guests:
    """Runs guests for a test: the fixture `trapline`."""

    def __init__(
        self,
        *,
        processor: str | None = None,
        trace: Callable[[], Path] | None = None,
        keep: Callable[[Kept], None],
        missing: Callable[[str], NoReturn],
    ) -> None:
        """`processor` takes the place of a test's own choice; `trace` names a file for the next run's records.

        `keep` gets each run that is over, `missing` the reason where a processor is not installed.
        """
        self._processor, self._trace, self._keep, self._missing = processor, trace, keep, missing
        self._machines: list[_Watched] = []

    def run(
        self,
        guest: PathLike | bytes | None = None,
        *,
        timeout: float | None = None,
        fail_on: Sequence[str] = (),
        expect: Sequence[str] = (),
        keep_going: bool = False,
        stop: Sequence[str] = (),
        **options: Unpack[MachineOptions],
    ) -> Run:
        """Run a guest as `trapline.run` does; skip the test where its processor is not installed.

        Ctrl-C ends the test.
        """
        __tracebackhide__ = True
        with self._skipping():
            trace = self._prepare(options)
            done = run(
                guest, timeout=timeout, fail_on=fail_on, expect=expect, keep_going=keep_going, stop=stop, **options
            )
        self._keep(Kept(_name(guest), done, trace))
        if done.ending is Ending.INTERRUPTED:
            raise KeyboardInterrupt
        return done

    def machine(self, guest: PathLike | bytes | None = None, **options: Unpack[MachineOptions]) -> Machine:
        """Return a `trapline.Machine`, which is closed after the test; skip the test where it has no processor."""
        __tracebackhide__ = True
        with self._skipping():
            trace = self._prepare(options)
            machine = _Watched(guest, **options)
        machine.watch(lambda done: self._keep(Kept(_name(guest), done, trace)))
        self._machines.append(machine)
        return machine

    def keep_results(self) -> None:
        """Keep the results so far of the machines that are not closed."""
        for machine in self._machines:
            machine.keep_result()

    def close(self) -> None:
        """Close the machines."""
        for machine in self._machines:
            machine.close()

    def _prepare(self, options: MachineOptions) -> Path | None:
        """Complete the options of a run; return where its records go."""
        if self._processor is not None and isinstance(options.get("processor", ""), str):
            options["processor"] = self._processor
        if self._trace is not None and options.get("output") is None:
            options["output"], options["force"] = self._trace(), True
        output = options.get("output")
        return Path(output) if isinstance(output, str | os.PathLike) else None

    @contextlib.contextmanager
    def _skipping(self) -> Iterator[None]:
        try:
            yield
        except (MissingExtra, ProcessorMissing) as error:
            self._missing(str(error.args[0]))


class _Watched(Machine):
    """A machine that passes on its result when it is closed."""

    _watcher: Callable[[Run], None] | None = None

    def watch(self, watcher: Callable[[Run], None]) -> None:
        """Call a function with the result, once."""
        self._watcher = watcher

    def keep_result(self) -> None:
        """Pass the current result to the watcher, if the guest ran."""
        watcher, self._watcher = self._watcher, None
        if watcher is None or self._stopped is None:
            return
        with contextlib.suppress(TraplineError):  # the processor is gone: then its error is what the test shows
            watcher(self.result())

    def close(self) -> None:
        """Switch the machine off."""
        self.keep_result()
        super().close()


def _name(guest: PathLike | bytes | None) -> str:
    if guest is None:
        return "of QEMU's options"
    return f"of {len(guest)} bytes" if isinstance(guest, bytes) else os.fspath(guest)


def _printable(data: bytes) -> str:
    """Return console output as text without control characters."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    return "".join(each if each.isprintable() or each in "\n\t" else "�" for each in text)
