"""QMP: commands to QEMU and the events that it sends, a JSON object a line (QEMU: docs/interop/qmp-spec)."""

import contextlib
import json
import socket
from typing import Any, Final

_PIECE: Final = 1 << 16
_STATUS_SECONDS: Final = 2.0
_VERSION: Final = ("major", "minor", "micro")


class Qmp:
    """The client's end of a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._commands = 0
        self._replies: dict[int, Any] = {}
        self._suspended = False
        self.version: tuple[int, int, int] | None = None
        """QEMU's, once its greeting has been read."""
        self._send("qmp_capabilities")

    def fileno(self) -> int:
        """Return the socket, which can be read while something is to be `receive`d."""
        return self._connection.fileno()

    def command(self, name: str, arguments: dict[str, str] | None = None, *, seconds: float | None = None) -> Any:  # noqa: ANN401  # JSON
        """Execute a command and return its result.

        None: an error, no answer within `seconds`, or QEMU has ended.
        """
        number = self._send(name, arguments)
        while number not in self._replies:
            if not self._read(seconds):
                return None
        return self._replies.pop(number)

    def human_command(self, line: str) -> None:
        """Execute a command of QEMU's human monitor."""
        self.command("human-monitor-command", {"command-line": line})

    def run_state(self) -> str | None:
        """Return whether the machine is `running`, `paused`, ...; None: QEMU does not say."""
        reply = self.command("query-status", seconds=_STATUS_SECONDS)
        return str(reply["status"]) if reply else None

    def receive(self) -> None:
        """Read what has arrived."""
        while self._read(0):
            pass

    def woke_up(self) -> bool:
        """Say, once, whether the last reset of the machine was that of waking from S3: it suspended before."""
        self.receive()
        suspended, self._suspended = self._suspended, False
        return suspended

    def _send(self, name: str, arguments: dict[str, str] | None = None) -> int:
        self._commands += 1
        request = {"execute": name, "arguments": arguments or {}, "id": self._commands}
        with contextlib.suppress(OSError):  # QEMU has ended
            self._connection.settimeout(None)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        return self._commands

    def _read(self, seconds: float | None) -> bool:
        """Take what comes within a time; False: nothing, or QEMU has hung up."""
        try:
            self._connection.settimeout(seconds)
            piece = self._connection.recv(_PIECE)
        except OSError:
            return False
        self._received += piece
        *lines, rest = self._received.split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._take(line)
        return bool(piece)

    def _take(self, line: bytes | bytearray) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        match message:
            case {"event": "SUSPEND"}:
                self._suspended = True
            case {"event": "RESET"}:  # not sent when the machine wakes up
                self._suspended = False
            case {"QMP": {"version": {"qemu": {"major": int(), "minor": int(), "micro": int()} as version}}}:
                major, minor, micro = (version[part] for part in _VERSION)
                self.version = major, minor, micro
            case {"id": int(number)}:
                self._replies[number] = message.get("return")
