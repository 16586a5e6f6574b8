"""QMP, spoken only when something is to be said: the library takes longer to load than QEMU to start."""

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qemu.qmp.legacy import QEMUMonitorProtocol


class Qmp:
    """Commands to QEMU over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._protocol: QEMUMonitorProtocol | None = None

    def command(self, name: str) -> None:
        """Execute a command without arguments and wait for its answer."""
        if self._protocol is None:
            from qemu.qmp.legacy import QEMUMonitorProtocol

            self._protocol = QEMUMonitorProtocol(self._connection)
            self._protocol.connect()
        self._protocol.cmd(name)
