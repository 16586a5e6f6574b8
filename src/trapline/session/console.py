"""The guest's console: keeps and passes on what the guest writes, and sends it input."""

import threading
from collections.abc import Callable
from typing import IO, Final, TypeAlias

from trapline.errors import UsageError

Sink: TypeAlias = IO[bytes] | Callable[[bytes], object]

KEPT: Final = 16 << 20
"""How many bytes of output are kept: the last ones."""


class Console:
    """The host's end of the guest's first serial port."""

    def __init__(self, sink: Sink | None = None) -> None:
        """`sink` gets the guest's output as it is written."""
        self._sink = sink if sink is None or callable(sink) else sink.write
        self._output = bytearray()
        self._dropped = 0
        self._changed = threading.Condition()
        self._send: Callable[[bytes], object] | None = None
        self._awaited: tuple[bytes, int, Callable[[], None]] | None = None
        self._failure: Exception | None = None
        self.interrupt: Callable[[], None] = lambda: None
        """Called in the thread of `take_apart` when the sink fails, to stop the guest."""

    def open_sink(self, sink: Callable[[bytes], object]) -> None:
        """Pass on the guest's output so far, and from now on as it is written. There was no other sink."""
        with self._changed:
            if self._output:
                sink(bytes(self._output))
            self._sink = sink

    @property
    def output(self) -> bytes:
        """The guest's output: the last `KEPT` bytes."""
        with self._changed:
            return bytes(self._output)

    def connect(self, send: Callable[[bytes], object]) -> None:
        """Set the function by which `write` sends bytes to the guest."""
        self._send = send

    def write(self, data: bytes) -> None:
        """Send bytes to the guest's serial port. Raises UsageError where the console takes no input."""
        if self._send is None:
            raise UsageError(
                "the guest's console takes no input: it has this process's stdin, or the processor is your own"
            )
        self._send(data)

    def take(self, data: bytes) -> None:
        """Take output of the guest; called by its processor. Raises what the sink raises."""
        if self._sink is not None:
            self._sink(data)
        self._keep(data)

    def take_apart(self, data: bytes) -> None:
        """Take output like `take`, in a thread that does not run the guest: `check` raises what the sink raises.

        A sink that failed gets no more. One that is a pipe without a reader is no failure.
        """
        try:
            if self._sink is not None:
                self._sink(data)
        except Exception as error:  # noqa: BLE001  # raised by `check`
            self._sink = None
            if not isinstance(error, BrokenPipeError):
                self._failure = error
                self.interrupt()
        self._keep(data)

    def check(self) -> None:
        """Raise what a sink raised in `take_apart`, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _keep(self, data: bytes) -> None:
        found = None
        with self._changed:
            self._output += data
            if len(self._output) > 2 * KEPT:
                self._dropped += len(self._output) - KEPT
                del self._output[:-KEPT]
            if self._awaited is not None:
                text, start, found = self._awaited
                if self._find(text, start) is None:  # do not search this part again
                    self._awaited = text, max(start, self._dropped + len(self._output) - len(text) + 1), found
                    found = None
                else:
                    self._awaited = None
            self._changed.notify_all()
        if found is not None:
            found()

    def find(self, text: bytes, start: int) -> tuple[bytes, int] | None:
        """Return the output from position `start` to the end of `text`, and the position after it; None: not found."""
        with self._changed:
            return self._find(text, start)

    def await_text(self, text: bytes, start: int, found: Callable[[], None]) -> None:
        """Call `found` once, in the thread of `take`, when `text` is in the output from position `start` on."""
        with self._changed:
            present = self._find(text, start) is not None
            self._awaited = None if present else (text, start, found)
        if present:
            found()

    def forget_text(self) -> None:
        """Cancel `await_text`."""
        with self._changed:
            self._awaited = None

    def wait(self, text: bytes, start: int, seconds: float | None) -> bool:
        """Wait for `text` in the output from position `start` on; another thread runs the guest. False: timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._find(text, start) is not None, seconds)

    def _find(self, text: bytes, start: int) -> tuple[bytes, int] | None:
        begin = max(start - self._dropped, 0)
        at = self._output.find(text, begin)
        if at < 0:
            return None
        end = at + len(text)
        return bytes(self._output[begin:end]), self._dropped + end
