"""QMP. Its library is loaded on the first command: that takes longer than QEMU takes to start."""

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from qemu.qmp import QMPClient


_GREETING: Final = 4096


class Qmp:
    """Commands to QEMU over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._client: QMPClient | None = None
        self._runner: asyncio.Runner

    def version(self) -> tuple[int, int, int] | None:
        """Return QEMU's version from its greeting, which is not consumed; None before it has arrived."""
        try:
            greeting = self._connection.recv(_GREETING, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            version = json.loads(greeting)["QMP"]["version"]["qemu"]
            return version["major"], version["minor"], version["micro"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def command(self, name: str, **arguments: str) -> None:
        """Execute a command and wait until it is done; without effect when QEMU has ended."""
        from qemu.qmp import QMPClient, QMPError

        with contextlib.suppress(QMPError, EOFError):
            if self._client is None:
                import asyncio

                self._runner = asyncio.Runner()
                self._client = QMPClient("trapline")
                self._runner.run(self._client.connect(self._connection))
            self._runner.run(self._client.execute(name, arguments))

    def human_command(self, line: str) -> None:
        """Execute a command of QEMU's human monitor."""
        self.command("human-monitor-command", **{"command-line": line})

    def drop_events(self) -> None:
        """Forget the events that QEMU has sent so far, which would pile up."""
        self.command("query-status")  # answered after them
        if self._client is not None:
            self._client.events.clear()

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        if self._client is None:
            return
        from qemu.qmp import QMPError

        with self._runner, contextlib.suppress(QMPError, OSError, EOFError):  # QEMU may have hung up
            self._runner.run(self._client.disconnect())
        self._client = None
