"""QMP. Its library takes longer to load than QEMU to start, so a thread loads it, and serves it from then on."""

import concurrent.futures
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    import asyncio

    from qemu.qmp import QMPClient

Version = tuple[int, int, int]
_T = TypeVar("_T")

_GREETING: Final = 4096
_STATUS_SECONDS: Final = 2.0
"""How long QEMU may take to say its state, or to hang up."""
_CHILD: Final = re.compile("child<(.*)>")
_OVER: Final = 5.0
"""Seconds that the thread has to end. It never does where an error in another thread left the lock of imports taken."""
_LOOK: Final = 1.0
"""Seconds between two looks whether the thread is over."""
_SUSPEND, _RESET, _SHUTDOWN = "SUSPEND", "RESET", "SHUTDOWN"
"""The events that are kept. QEMU sends no RESET when the machine wakes up."""


class _Session(NamedTuple):
    client: "QMPClient"
    loop: "asyncio.AbstractEventLoop"
    over: "asyncio.Event"

    def call(self, make: Callable[[], Coroutine[Any, Any, _T]], seconds: float | None = None) -> _T:
        """Return the result of a coroutine that is made in the thread; raises TimeoutError.

        EOFError: the thread is over, or ends meanwhile.
        """
        import asyncio

        waiting = _within(make, seconds)
        try:
            future = asyncio.run_coroutine_threadsafe(waiting, self.loop)
        except RuntimeError as error:  # the loop is closed
            waiting.close()
            raise EOFError from error
        while not future.done() and not self.loop.is_closed():
            concurrent.futures.wait([future], _LOOK)
        if not future.done() or future.cancelled():
            raise EOFError
        return future.result()


class Qmp:
    """Commands to QEMU over a connected socket, which belongs to the library from now on. Any thread may give them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._version = concurrent.futures.Future[Version | None]()
        self._connected = concurrent.futures.Future[_Session | None]()
        self._thread = threading.Thread(target=self._serve, name="trapline-qmp", daemon=True)
        self._thread.start()

    def version(self, seconds: float | None = None) -> Version | None:
        """Return QEMU's version from its greeting; None when it did not come in time, or QEMU has ended."""
        with contextlib.suppress(TimeoutError):
            return self._version.result(seconds)
        return None

    def command(self, name: str, arguments: dict[str, object] | None = None, *, seconds: float | None = None) -> Any:  # noqa: ANN401  # JSON
        """Execute a command and return its result.

        None: an error, no answer within `seconds`, or QEMU has ended.
        """
        try:
            session = self._connected.result(seconds)
        except TimeoutError:
            return None
        if session is None:
            return None
        from qemu.qmp import QMPError

        with contextlib.suppress(QMPError, EOFError, OSError):  # TimeoutError is an OSError
            return session.call(lambda: session.client.execute(name, arguments), seconds)
        return None

    def human_command(self, line: str, *, seconds: float | None = None) -> str | None:
        """Execute a command of QEMU's human monitor, and return what it prints; None: as `command`."""
        printed = self.command("human-monitor-command", {"command-line": line}, seconds=seconds)
        return None if printed is None else str(printed).replace("\r", "")

    def created_devices(self) -> list[str]:
        """Return QEMU's names for the kinds of the devices that options have created."""
        found = []
        for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
            children = self.command("qom-list", {"path": folder}) or ()
            kinds = (_CHILD.fullmatch(child["type"]) for child in children)
            found += [kind[1] for kind in kinds if kind]
        return found

    def ask_human(self, line: str) -> str:
        """Return what QEMU's human monitor answers; empty: it does not within `_STATUS_SECONDS`."""
        return self.human_command(line, seconds=_STATUS_SECONDS) or ""

    def run_state(self) -> str | None:
        """Return whether the machine is `running`, `paused`, ...; None: QEMU does not say."""
        reply = self.command("query-status", seconds=_STATUS_SECONDS)
        return str(reply["status"]) if reply else None

    def woke_up(self) -> bool:
        """Say, once, whether the last reset of the machine was that of waking from S3: it suspended before."""
        self.command("query-status")  # answered after the events before it
        session = self._connected.result()
        if session is None:
            return False
        events: list[Any] = []
        with contextlib.suppress(EOFError):
            events = session.call(partial(_taken, session.client))
        return [event["event"] for event in events[-1:]] == [_SUSPEND]

    def has_memory_at(self, address: int, slot: int, function: int) -> bool:
        """Return whether a PCI device has memory at an address; True where QEMU does not say."""
        buses = self.command("query-pci", seconds=_STATUS_SECONDS)
        if buses is None:
            return True
        return any(
            region["address"] == address
            for bus in buses
            for device in bus["devices"]
            if (device["slot"], device["function"]) == (slot, function)
            for region in device["regions"]
        )

    def shutdown_reason(self) -> str | None:
        """Return why QEMU, which has ended, shut down: a `ShutdownCause` of its QMP reference. None: it did not say."""
        session = self._connected.result()
        if session is None:
            return None
        events: list[Any] = []
        with contextlib.suppress(EOFError):
            with contextlib.suppress(TimeoutError):
                session.call(partial(_hung_up, session.client), _STATUS_SECONDS)
            events = session.call(partial(_taken, session.client))
        found = [event["data"].get("reason") for event in events if event["event"] == _SHUTDOWN]
        return found[-1] if found else None

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        with contextlib.suppress(OSError):  # QEMU may have hung up
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError, RuntimeError):  # the latter where the thread has just ended
            session = self._connected.result(_OVER)
            if session is not None and self._thread.is_alive():
                session.loop.call_soon_threadsafe(session.over.set)
        self._thread.join(_OVER)

    def _serve(self) -> None:
        try:
            self._version.set_result(read_greeting(self._connection))
            import asyncio

            asyncio.run(self._hold())
        finally:  # whatever happened here, nobody waits for it without end
            if not self._connected.done():
                self._connected.set_result(None)

    async def _hold(self) -> None:
        import asyncio

        from qemu.qmp import QMPClient, QMPError

        client = QMPClient("trapline")
        client.logger.disabled = True  # a QEMU that does not start says better itself why
        client.events.names = {_SUSPEND, _RESET, _SHUTDOWN}
        lost = (QMPError, EOFError, OSError, AssertionError)  # the last when QEMU ends as soon as it has greeted
        with contextlib.suppress(*lost):
            await client.connect(self._connection)
            over = asyncio.Event()
            self._connected.set_result(_Session(client, asyncio.get_running_loop(), over))
            await over.wait()
        with contextlib.suppress(*lost):
            await asyncio.wait_for(client.disconnect(), _STATUS_SECONDS)


def read_greeting(connection: socket.socket) -> Version | None:
    """Return QEMU's version from its greeting, which is waited for and stays there to be read; None: it has ended."""
    try:
        greeting = connection.recv(_GREETING, socket.MSG_PEEK)
        version = json.loads(greeting)["QMP"]["version"]["qemu"]
        return version["major"], version["minor"], version["micro"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _within(make: Callable[[], Coroutine[Any, Any, _T]], seconds: float | None) -> _T:
    import asyncio

    return await asyncio.wait_for(make(), seconds)


async def _taken(client: "QMPClient") -> list[Any]:
    return client.events.clear()


async def _hung_up(client: "QMPClient") -> None:
    """Wait until QEMU has hung up: all that it sent has been read then."""
    from qemu.qmp import Runstate

    while client.runstate is Runstate.RUNNING:
        await client.runstate_changed()
