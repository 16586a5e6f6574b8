"""Where gdb connects: a TCP port, a Unix socket, or standard input and output."""

import os
import socket
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from trapline.errors import TraplineError, UsageError
from trapline.typed import shortened

LOOPBACK: Final = "127.0.0.1"
_UNIX: Final = "unix:"
_STDIO: Final = "stdio"
_HIGHEST_PORT: Final = 65535
_CHUNK: Final = 1 << 16
_PATIENCE: Final = 30.0
"""Seconds for which a client may not read what it is sent."""


class Endpoint(NamedTuple):
    """Where a client connects."""

    host: str = LOOPBACK
    port: int = 0
    path: Path | None = None
    """Of a Unix socket."""
    stdio: bool = False

    def __str__(self) -> str:
        """Return what gdb's `target remote` takes."""
        if self.stdio:
            return "standard input and output"
        return str(self.path) if self.path is not None else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read `[HOST:]PORT`, `unix:PATH` or `stdio`; raises UsageError."""
    if text == _STDIO:
        return Endpoint(stdio=True)
    if text.startswith(_UNIX) and len(text) > len(_UNIX):
        return Endpoint(path=Path(text.removeprefix(_UNIX)))
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= _HIGHEST_PORT):
        raise UsageError(f"--gdb {shortened(text)}: give [HOST:]PORT, unix:PATH or stdio")
    return Endpoint(host or LOOPBACK, int(port))


class Listener:
    """A socket to which clients connect. Close it: a Unix socket is then removed."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises UsageError where the address cannot be had."""
        self.endpoint = endpoint
        host = endpoint.host.removeprefix("[").removesuffix("]")
        family = socket.AF_UNIX if endpoint.path is not None else socket.AF_INET6 if ":" in host else socket.AF_INET
        address = os.fspath(endpoint.path) if endpoint.path is not None else (host, endpoint.port)
        self._socket = socket.socket(family)
        try:
            if endpoint.path is None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen()
        except (OSError, ValueError) as error:
            self._socket.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"{endpoint}: no debugger can connect there: {reason}") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the file descriptor, readable when a client connects."""
        return self._socket.fileno()

    def accept(self) -> "SocketConnection | None":
        """Return a client's connection; None: it is gone already."""
        try:
            accepted, _ = self._socket.accept()
        except OSError:
            return None
        return SocketConnection(accepted)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        if self.endpoint.path is not None:
            self.endpoint.path.unlink(missing_ok=True)


class ConnectionClosed(TraplineError):
    """The client is gone, or does not read."""


class Connection(Protocol):
    """A client."""

    def fileno(self) -> int:
        """Return the file descriptor, readable when something arrived."""

    def read(self) -> bytes:
        """Return what arrived; raises ConnectionClosed."""

    def write(self, data: bytes) -> None:
        """Send all; raises ConnectionClosed."""

    def close(self) -> None:
        """Hang up."""


class SocketConnection:
    """A client on a socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        connected.settimeout(_PATIENCE)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """See `Connection.fileno`."""
        return self._socket.fileno()

    def read(self) -> bytes:
        """See `Connection.read`."""
        try:
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            raise ConnectionClosed(str(error)) from error
        if not data:
            raise ConnectionClosed("the client hung up")
        return data

    def write(self, data: bytes) -> None:
        """See `Connection.write`."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionClosed(str(error)) from error

    def close(self) -> None:
        """See `Connection.close`."""
        self._socket.close()


class PipeConnection:
    """A client on two file descriptors."""

    def __init__(self, source: int = 0, sink: int = 1) -> None:
        self._source, self._sink = source, sink

    def fileno(self) -> int:
        """See `Connection.fileno`."""
        return self._source

    def read(self) -> bytes:
        """See `Connection.read`."""
        try:
            data = os.read(self._source, _CHUNK)
        except OSError as error:
            raise ConnectionClosed(str(error)) from error
        if not data:
            raise ConnectionClosed("the client closed its end")
        return data

    def write(self, data: bytes) -> None:
        """See `Connection.write`."""
        try:
            while data:
                data = data[os.write(self._sink, data) :]
        except OSError as error:
            raise ConnectionClosed(str(error)) from error

    def close(self) -> None:
        """See `Connection.close`."""
