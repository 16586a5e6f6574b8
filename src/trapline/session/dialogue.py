"""`Machine.console`: a dialogue with the guest over its console."""

from collections.abc import Callable

from trapline.errors import GuestFailed
from trapline.hypervisor.stop import StopReason

from .console import Console


class Dialogue:
    """The guest's console: its first serial port, and on Unicorn port 0xE9 as well."""

    def __init__(
        self,
        console: Console,
        *,
        run: Callable[[float | None], str],
        interrupt: Callable[[], None],
        is_running: Callable[[], bool],
    ) -> None:
        """`run(timeout)` runs the guest and returns why it stopped, for a message; `interrupt` stops it."""
        self._console = console
        self._run, self._interrupt, self._is_running = run, interrupt, is_running
        self._read_to = 0

    @property
    def output(self) -> bytes:
        """The guest's output so far: the last 16 MiB."""
        return self._console.output

    def write(self, data: bytes) -> None:
        """Send bytes to the guest's serial port, which it reads when it runs.

        Raises UsageError where the console takes no input.
        """
        self._console.write(data)

    def read_until(self, text: bytes, timeout: float | None = None) -> bytes:
        """Run the guest until it writes `text`; return its output since the last call up to the end of `text`.

        If another thread runs the guest, wait for it. Raises GuestFailed if the guest stops before it has written
        `text`, or after `timeout` seconds.
        """
        start = self._read_to
        if self._is_running():
            why = "" if self._console.wait(text, start, timeout) else StopReason.TIMEOUT.value
        else:
            why = self._run_until(text, start, timeout)
        found = self._console.find(text, start)
        if found is None:
            end = self._console.output[-200:].decode(errors="replace")
            raise GuestFailed(f"the guest did not write {text!r}: {why}; the console ends with {end!r}")
        data, self._read_to = found
        return data

    def _run_until(self, text: bytes, start: int, timeout: float | None) -> str:
        if self._console.find(text, start) is not None:
            return ""
        self._console.await_text(text, start, self._interrupt)
        try:
            return self._run(timeout)
        finally:
            self._console.forget_text()
