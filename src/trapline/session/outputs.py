"""The files of one run: of its records, in the format that the name asks for, and of the guest's console."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Self

from trapline.errors import TraplineError, UsageError

from .clash import File, check_clashes, input_files, output_file
from .console import Console
from .output import LineWriter, OutputFile
from .settings import Outlets, PathLike, Settings
from .stream import Stream

if TYPE_CHECKING:
    from trapline.machine.processor import Processor
    from trapline.trace.exception_record import Lookup
    from trapline.trace.files.output import BatchOutput, RecordOutput
    from trapline.trace.files.writer import Format
    from trapline.trace.stored import Metadata

    from .metadata import Started


class TraceFile:
    """The file of records, and the one that has what can be read until it is complete, if the format needs one."""

    def __init__(self, name: PathLike, *, force: bool) -> None:
        """Check the names. Raises UsageError for a file that holds something, unless `force`, and an unknown format."""
        self._name = name
        self._file = OutputFile("-o", name, force=force)
        self._format = _format(name, stored=self._file.is_stored)
        self._part: OutputFile | None = None
        if self._format.has_part and self._file.is_stored:
            self._part = OutputFile("-o", part_of(name), force=force)

    def open(self, undo: contextlib.ExitStack, lookup: "Lookup | None") -> "RecordOutput":
        """Open the files without a change to what they hold; `undo` closes them. Raises UsageError and MissingExtra."""
        from trapline.trace.files.output import BatchOutput, LineOutput
        from trapline.trace.files.writer import LINES

        self._format.check()
        undo.callback(self._file.close)
        if self._format is LINES:
            return LineOutput(self._file.open_text(), lookup)
        file, part = self._file.open_buffered(), None
        if self.stream is not None:
            self.stream.unit = "byte"
        if self._part is not None:
            undo.callback(self._part.close)
            part = self._part.open_buffered()
        output = BatchOutput(os.fspath(self._name), partial(self._format.make, file, part), lookup)
        undo.callback(self._complete, output)
        return output

    def begin(self) -> None:
        """Remove what they held. Raises TraplineError."""
        for file in (self._file, self._part):
            if file is not None:
                file.begin()

    @property
    def stream(self) -> Stream | None:
        """The file, if somebody reads it meanwhile."""
        return self._file.stream

    def _complete(self, output: "BatchOutput") -> None:
        try:
            output.close()
        except OSError as error:
            told = f"{os.fspath(self._name)}: {error.strerror}; what was recorded before is kept"
            raise TraplineError(told) from error
        finally:
            for file in (self._file, self._part) if output.failed else ():
                if file is not None:
                    file.give_up()
        if self._part is not None and not output.failed:
            self._part.remove()


class OutputFiles:
    """The files of one run. They are closed after all that writes to them."""

    def __init__(self, settings: Settings, outlets: Outlets) -> None:
        """Check them, before any is opened. Raises UsageError for one that is also read, and for one that exists."""
        outputs = [*record_files(outlets.output), *output_file("--console", outlets.console)]
        if outputs:
            check_clashes(input_files(settings), outputs)
        self._given = outlets.output
        self._trace: TraceFile | None = None
        if isinstance(outlets.output, str | os.PathLike):
            self._trace = TraceFile(outlets.output, force=outlets.force)
        self._console: OutputFile | None = None
        if isinstance(outlets.console, str | os.PathLike):
            self._console = OutputFile("--console", outlets.console, force=outlets.force)
        self._closing = contextlib.ExitStack()
        self._writer: LineWriter | None = None
        self._output: RecordOutput | None = None
        self._metadata: Metadata | None = None

    def open(self, lookup: "Lookup | None") -> "RecordOutput | None":
        """Open them and return what takes records; None: there is none. Raises UsageError and MissingExtra."""
        if self._console is not None:
            self._closing.callback(self._console.close)
            self._writer = LineWriter(self._console.open())
        if self._trace is not None:
            self._output = self._trace.open(self._closing, lookup)
        elif self._given is not None:
            from trapline.trace.files.output import LineOutput

            assert not isinstance(self._given, str | os.PathLike)
            self._output = LineOutput(self._given, lookup)
        return self._output

    def describe(self, session: "Started") -> None:
        """Make what the file of records says of its run, if there is one: while the processor starts."""
        if self._output is not None:
            from .metadata import run_metadata

            self._metadata = run_metadata(session)

    def begin(self, console: Console, processor: "Processor") -> None:
        """Remove what they held, and let them be written: the processor has started. `describe` comes before."""
        for file in (self._trace, self._console):
            if file is not None:
                file.begin()
        writer, self._writer = self._writer, None
        if writer is not None:
            console.open_sink(writer.write)
            self._closing.callback(writer.finish)
        output, self._output = self._output, None
        if output is not None:
            from msgspec.structs import replace

            assert self._metadata is not None, "describe comes before"
            output.begin(replace(self._metadata, tsc_frequency=processor.tsc_frequency))

    @property
    def stream(self) -> Stream | None:
        """The file of records, if somebody reads it meanwhile."""
        return None if self._trace is None else self._trace.stream

    def wait_for_console(self, limit: float | None) -> None:
        """See `LineWriter.wait_until`."""
        if self._console is not None:
            self._console.wait_until(limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def record_files(outlet: object) -> Iterator[File]:
    """Yield the files of records for `check_clashes`: what is given with `-o`, and its part."""
    from trapline.trace.files.writer import format_of

    yield from output_file("-o", outlet)
    if isinstance(outlet, str | os.PathLike):
        with contextlib.suppress(UsageError):
            if format_of(outlet).has_part:
                yield File("-o", part_of(outlet))


def part_of(name: PathLike) -> str:
    """Return the name of the file that has the records of a file until that is complete."""
    from trapline.trace.files.writer import PART

    return os.fspath(name) + PART


def _format(name: PathLike, *, stored: bool) -> "Format":
    from trapline.trace.files.writer import LINES, format_of

    try:
        return format_of(name)
    except UsageError:
        if stored:
            raise
        return LINES
