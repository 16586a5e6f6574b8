"""The loop of the adapter: it waits for the client and for the guest at once."""

import logging
import os
import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from trapline.api import Stop
from trapline.debugger.runner import LOOK, Runner
from trapline.errors import TraplineError, UsageError

from .adapter import Adapter
from .framing import Incoming
from .messages import read_request
from .outbox import Outbox
from .refusing import refuse
from .state import Work, internal
from .stops import output

log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 1 << 16
_PIECE: Final = 4096
"""Bytes that can be written without waiting where `poll` says that one can (PIPE_BUF)."""
_RETRY: Final = 0.02
"""Seconds after which requests are tried again that wait for a guest which was about to run."""
_GATHERED: Final = 0.02
"""Seconds for which what the guest writes is gathered: it may write each character by itself."""
_PATIENCE: Final = 5.0
"""Seconds in which a guest stops that is interrupted; then its machine is switched off."""


class Connection:
    """A client that is connected. Use it as a context manager."""

    def __init__(self, read: int, write: int, *, stdio: bool = False, listener: socket.socket | None = None) -> None:
        """`read` and `write` are file descriptors. `stdio`: they are this process's standard input and output.

        `listener`: clients that come to it meanwhile are refused.
        """
        self._read, self._write, self._listener = read, write, listener
        self._incoming, self._outbox, self._unsent = Incoming(), Outbox(), b""
        self._adapter = Adapter(self._outbox.post, stdio=stdio)
        self._runner: Runner[Stop | TraplineError] = Runner()
        self._is_gone = False
        self._late: float | None = None
        """When a guest that was interrupted should have stopped, on the clock of `time.monotonic`; None: none was."""
        self._gathering: float | None = None
        """Until when output of the guest is gathered, on the same clock; None: it is not."""

    def serve(self) -> None:
        """Serve the client until it leaves, or hangs up.

        Raises UsageError where what it sends is not the protocol, or ends within a message.
        """
        while not (self._is_gone or (self._adapter.is_done and self._outbox.is_empty and not self._unsent)):
            for descriptor in self._wait():
                if descriptor == self._read:
                    self._receive()
                elif descriptor == self._runner.fileno():
                    self._start(self._adapter.ran(self._runner.take()))
                elif self._listener is not None and descriptor == self._listener.fileno() and not self._is_gone:
                    refuse(self._listener)
            self._adapter.retry()
            self._force()
            self._send()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Switch the guest off."""
        self._outbox.close()
        if self._runner.is_busy:
            self._adapter.interrupt()
            if not select.select([self._runner.fileno()], [], [], _PATIENCE)[0]:
                self._adapter.leave()
            self._runner.take()
        self._adapter.leave()
        self._runner.close()

    def _wait(self) -> list[int]:
        """Wait for the client, the guest and messages; return the descriptors that have something to read."""
        poll = select.poll()
        for descriptor in (self._read, self._runner.fileno()):
            poll.register(descriptor, select.POLLIN)
        if self._gathering is None:
            poll.register(self._outbox.fileno(), select.POLLIN)
        if self._unsent:
            poll.register(self._write, select.POLLOUT | select.POLLIN * (self._write == self._read))
        if self._listener is not None:  # last: a client that has hung up makes room for the next one
            poll.register(self._listener.fileno(), select.POLLIN)
        ready = poll.poll(self._patience() * 1000)
        return [descriptor for descriptor, events in ready if events & ~select.POLLOUT]

    def _patience(self) -> float:
        """Return how long to wait at most."""
        if self._gathering is not None:
            return max(0.0, self._gathering - time.monotonic())
        if self._adapter.must_retry:
            return _RETRY
        return _PATIENCE if self._adapter.is_ending else LOOK

    def _force(self) -> None:
        """Switch the machine off of a guest that should have stopped long ago."""
        if not self._adapter.is_ending:
            self._late = None
        elif self._late is None:
            self._late = time.monotonic() + _PATIENCE
        elif time.monotonic() >= self._late:
            self._adapter.leave()

    def _receive(self) -> None:
        try:
            data = os.read(self._read, _CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            self._is_gone = True
            if not self._incoming.is_between:
                raise UsageError("the client hung up within a message")
        for body in self._incoming.feed(data):
            try:
                request = read_request(body)
            except UsageError as error:
                self._outbox.post(output(f"trapline: {error}\n", "important"))
                continue
            self._start(self._adapter.handle(request))

    def _start(self, work: Work | None) -> None:
        if work is not None:
            self._runner.start(lambda: run(work))

    def _send(self) -> None:
        now = time.monotonic()
        if self._outbox.is_console and self._gathering is None:
            self._gathering = now + _GATHERED
        elif not self._outbox.is_console or now >= (self._gathering or now):
            self._gathering = None
            self._unsent += self._outbox.take()
        if self._unsent and select.select([], [self._write], [], 0)[1]:
            try:
                written = os.write(self._write, self._unsent[:_PIECE])
            except ConnectionError:
                self._is_gone = True
                return
            self._unsent = self._unsent[written:]


def run(work: Work) -> Stop | TraplineError:
    """Run a guest; return why it stopped, or what failed."""
    try:
        return work()
    except TraplineError as error:
        return error
    except Exception as error:  # noqa: BLE001  # the session goes on
        return internal(error)


def listen(port: int, ready: Callable[[int], None]) -> None:
    """Serve clients on a port of this machine, one after the other, for ever; `ready` gets the port.

    One that comes while another is served is refused.

    Raises UsageError where the port cannot be had.
    """
    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UsageError(f"--port {port}: {os.strerror(error.errno or 0)}") from None
    with listener:
        ready(listener.getsockname()[1])
        while True:
            while not select.select([listener], [], [], LOOK)[0]:
                pass
            client, _ = listener.accept()
            with client, Connection(client.fileno(), client.fileno(), listener=listener) as connection:
                try:
                    connection.serve()
                except UsageError as error:
                    log.warning("%s", error)
