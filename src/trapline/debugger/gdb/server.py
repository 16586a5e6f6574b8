"""The loop that serves gdb: it waits for clients, for the guest, and for what else ends a session."""

import selectors
from collections import deque
from collections.abc import Callable
from typing import Final

from trapline.api import Stop
from trapline.debugger.runner import LOOK, Runner
from trapline.debugger.target import Target
from trapline.errors import TraplineError

from . import packets
from .console import Console
from .endpoint import Connection, ConnectionClosed, Listener, SocketConnection
from .packets import Mark
from .stops import EXITED
from .stub import Answer, End, Stub, refusal, said

_QUEUED: Final = 64
"""Packets that a client may send while the guest runs; more are dropped."""
_REFUSED: Final = 16
"""Connections that are being refused at a time."""
_BUSY: Final = "another debugger is connected to this guest"


class Server:
    """Serves one client at a time, over sessions that follow one another, until one of them ends all."""

    def __init__(
        self,
        target: Target,
        listener: Listener | None,
        connection: Connection | None = None,
        *,
        attached: bool,
        exit_code: Callable[[], int],
        say: Callable[[str], None],
        console: Console | None = None,
        until: int | None = None,
    ) -> None:
        """`say` prints a line for the user; `until` is a file descriptor that is readable when all is over.

        Without a listener there is one connection, whose end is the end of all.
        """
        self._target, self._listener, self._console, self._until = target, listener, console, until
        self._attached, self._exit_code, self._say = attached, exit_code, say
        self._client: _Client | None = None
        self._first = connection
        self._refused: deque[SocketConnection] = deque()
        self._end: End | None = None

    def serve(self) -> End:
        """Serve until a client detaches, kills the guest, or the guest ends. The guest is stopped afterwards."""
        with Runner[Stop]() as runner, selectors.DefaultSelector() as selector:
            self._runner, self._selector = runner, selector
            selector.register(runner, selectors.EVENT_READ, self._stopped)
            if self._listener is not None:
                selector.register(self._listener, selectors.EVENT_READ, self._connected)
            if self._console is not None:
                selector.register(self._console, selectors.EVENT_READ, self._wrote)
            if self._until is not None:
                selector.register(self._until, selectors.EVENT_READ, self._killed)
            if self._first is not None:
                self._begin(self._first)
            try:
                while self._end is None:
                    for key, _ in selector.select(LOOK):
                        if self._end is None:
                            key.data()
            finally:
                try:
                    self._halt()
                finally:
                    self._hang_up()
        return self._end

    def _hang_up(self) -> None:
        """Close all connections: a client that waits for the guest would do so for ever."""
        for connection in self._refused:
            connection.close()
        if self._client is not None:
            self._client.connection.close()

    def _begin(self, connection: Connection) -> None:
        stub = Stub(self._target, attached=self._attached, exit_code=self._exit_code)
        self._client = _Client(connection, stub)
        self._selector.register(connection, selectors.EVENT_READ, self._arrived)

    def _connected(self) -> None:
        assert self._listener is not None
        connection = self._listener.accept()
        if connection is None:
            return
        if self._client is None:
            self._begin(connection)
            return
        self._refused.append(connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._refuse(connection))
        if len(self._refused) > _REFUSED:
            self._forget(self._refused[0])

    def _refuse(self, connection: SocketConnection) -> None:
        """Answer each packet of a second client with the reason, until it goes."""
        if connection not in self._refused:
            return
        try:
            connection.read()
            connection.write(b"+" + packets.encode(refusal(_BUSY)))
        except ConnectionClosed:
            self._forget(connection)

    def _forget(self, connection: SocketConnection) -> None:
        self._selector.unregister(connection)
        self._refused.remove(connection)
        connection.close()

    def _killed(self) -> None:
        self._end = End.KILLED

    def _arrived(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            for received in client.decoder.feed(client.connection.read()):
                if received is Mark.INTERRUPT:
                    client.interrupted = True
                    self._interrupt(client)
                elif isinstance(received, Mark):
                    client.answer_mark(received)
                else:
                    client.acknowledge()
                    if len(client.queue) < _QUEUED:
                        client.queue.append(received)
                    self._work_off(client)  # a Ctrl-C that follows is for what this starts
        except ConnectionClosed:
            self._lost()

    def _work_off(self, client: "_Client") -> None:
        while client.queue and not self._runner.is_busy and self._end is None:
            self._do(client, client.stub.handle(client.queue.popleft()))

    def _do(self, client: "_Client", answer: Answer) -> None:
        client.send(*answer.replies)
        self._end = answer.end
        if answer.work is not None:
            self._runner.start(answer.work)
            self._interrupt(client)
            self._pass_on()

    def _interrupt(self, client: "_Client") -> None:
        """Stop a guest that runs; one that is stopped is interrupted when it is resumed (gdb manual, "Interrupts").

        gdb sends an interrupt before the packet that resumes the guest if Ctrl-C is typed between the two.
        """
        if client.interrupted and self._runner.is_busy:
            client.interrupted = False
            self._target.interrupt()

    def _stopped(self) -> None:
        client = self._client
        if client is None or not self._runner.is_busy:
            return
        try:
            answer = client.stub.stopped(self._take())
        except TraplineError as error:
            answer = client.stub.failed(error)
        try:
            self._pass_on()
            self._do(client, answer)
            self._work_off(client)
        except ConnectionClosed:
            self._lost()

    def _wrote(self) -> None:
        """Pass on what the guest wrote; gdb takes it only while the guest runs."""
        assert self._console is not None
        self._console.calm()
        if self._runner.is_busy:
            try:
                self._pass_on()
            except ConnectionClosed:
                self._lost()

    def _pass_on(self) -> None:
        if self._console is not None and self._client is not None:
            self._client.send(*map(said, self._console.take()))

    def _lost(self) -> None:
        """The client is gone: stop the guest, and wait for another one."""
        client, self._client = self._client, None
        assert client is not None
        self._selector.unregister(client.connection)
        client.connection.close()
        self._halt()
        client.stub.close()
        if self._target.stop.reason in EXITED:
            self._end = End.EXITED
        elif self._listener is None:
            self._end = End.KILLED
        elif self._until is None:
            where = self._listener.endpoint
            self._say(f"the debugger is gone and the guest stopped; another debugger can connect to {where}")

    def _halt(self) -> None:
        if self._runner.is_busy:
            self._target.interrupt()
            self._take()

    def _take(self) -> Stop:
        """Return why the guest has stopped, or raise what its run raised."""
        stop = self._runner.take()
        self._target.forget_interrupt()
        return stop


class _Client:
    """A connected client."""

    def __init__(self, connection: Connection, stub: Stub) -> None:
        self.connection, self.stub = connection, stub
        self.decoder = packets.Decoder()
        self.queue: deque[bytes] = deque()
        self.interrupted = False
        """An interrupt has arrived, and has not reached the guest."""
        self._last = b""

    def send(self, *payloads: bytes) -> None:
        """Send packets."""
        if payloads:
            self._last = packets.encode(payloads[-1])
            self.connection.write(b"".join(map(packets.encode, payloads)))

    def acknowledge(self) -> None:
        """Acknowledge a packet."""
        if not self.stub.no_ack:
            self.connection.write(b"+")

    def answer_mark(self, mark: Mark) -> None:
        """Send again what did not arrive whole, or ask for it."""
        if mark is Mark.NACK:
            self.connection.write(self._last)
        elif mark is Mark.DAMAGED and not self.stub.no_ack:
            self.connection.write(b"-")
