"""QMP, spoken only when something is to be said: the library takes longer to load than QEMU to start."""

import json
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qemu.qmp.legacy import QEMUMonitorProtocol


_GREETING: Final = 4096


class Qmp:
    """Commands to QEMU over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._protocol: QEMUMonitorProtocol | None = None

    def version(self) -> tuple[int, int, int] | None:
        """Return QEMU's version from its greeting, which stays to be read; None where it has not come yet."""
        try:
            greeting = self._connection.recv(_GREETING, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            version = json.loads(greeting)["QMP"]["version"]["qemu"]
            return version["major"], version["minor"], version["micro"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def command(self, name: str) -> None:
        """Execute a command without arguments and wait for its answer."""
        if self._protocol is None:
            from qemu.qmp.legacy import QEMUMonitorProtocol

            self._protocol = QEMUMonitorProtocol(self._connection)
            self._protocol.connect()
        self._protocol.cmd(name)
