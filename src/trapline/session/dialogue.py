"""A dialogue with a guest over its console."""

from collections.abc import Callable

from trapline.errors import GuestFailed

from .console import Console


class Dialogue:
    """The guest's console: its first serial port, and in this process port 0xE9 as well."""

    def __init__(
        self,
        console: Console,
        *,
        run: Callable[[float | None], str],
        interrupt: Callable[[], None],
        is_running: Callable[[], bool],
    ) -> None:
        """`run(timeout)` runs the guest and returns in words why it stopped, as it does after `interrupt`."""
        self._console = console
        self._run, self._interrupt, self._is_running = run, interrupt, is_running
        self._read_to = 0

    @property
    def output(self) -> bytes:
        """What the guest wrote so far: the last 16 MiB."""
        return self._console.output

    def write(self, data: bytes) -> None:
        """Send bytes to the guest, which finds them in its serial port when it runs.

        Raises UsageError where the console cannot be written to.
        """
        self._console.write(data)

    def read_until(self, text: bytes, timeout: float | None = None) -> bytes:
        """Run the guest until it has written `text`; return what it wrote since the last call, up to and with it.

        Where another thread runs the guest, this waits for it. Raises GuestFailed where the guest stops before, or
        `timeout` seconds have passed.
        """
        start = self._read_to
        if self._is_running():
            came = self._console.wait(text, start, timeout)
            why = "" if came else "the time was up"
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
