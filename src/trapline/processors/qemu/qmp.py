"""QMP: commands to QEMU as lines of JSON, their replies, and events (docs/interop/qmp-spec.txt of QEMU)."""

import contextlib
import json
import re
import socket
import time
from typing import Any, Final

Version = tuple[int, int, int]

_PIECE: Final = 65536
_STATUS_SECONDS: Final = 2.0
"""How long QEMU may take to say its state, or to hang up."""
_CHILD: Final = re.compile("child<(.*)>")
_SUSPEND, _RESET, _SHUTDOWN = "SUSPEND", "RESET", "SHUTDOWN"
"""The events that are kept. QEMU sends no RESET when the machine wakes up."""
_KEPT: Final = frozenset({_SUSPEND, _RESET, _SHUTDOWN})


class Qmp:
    """Commands to QEMU over a connected socket, which belongs to this object from now on. Used by one thread.

    Nothing is read before an answer is wanted: what QEMU sends meanwhile waits in the socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._version: Version | None = None
        self._events: list[dict[str, Any]] = []
        self._sent = 0
        with contextlib.suppress(OSError):  # QEMU has ended
            self._send("qmp_capabilities", None)  # QEMU takes it after its greeting, and sends events from then on

    def version(self, seconds: float | None = None) -> Version | None:
        """Return QEMU's version from its greeting; None when it did not come in time, or QEMU has ended."""
        deadline = _deadline(seconds)
        with contextlib.suppress(OSError, EOFError):  # TimeoutError is an OSError
            while self._version is None:
                self._receive(deadline)
        return self._version

    def command(self, name: str, arguments: dict[str, object] | None = None, *, seconds: float | None = None) -> Any:  # noqa: ANN401  # JSON
        """Execute a command and return its result.

        None: an error, no answer within `seconds`, or QEMU has ended.
        """
        deadline = _deadline(seconds)
        with contextlib.suppress(OSError, EOFError):
            number = self._send(name, arguments)
            while True:
                message = self._receive(deadline)
                if message.get("id") == number:
                    return message.get("return")
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
        return [event["event"] for event in self._take_events()[-1:]] == [_SUSPEND]

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
        deadline = _deadline(_STATUS_SECONDS)
        with contextlib.suppress(OSError, EOFError):
            while True:  # until QEMU has hung up
                self._receive(deadline)
        found = [event["data"].get("reason") for event in self._take_events() if event["event"] == _SHUTDOWN]
        return found[-1] if found else None

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        self._connection.close()

    def _take_events(self) -> list[dict[str, Any]]:
        taken, self._events = self._events, []
        return taken

    def _send(self, name: str, arguments: dict[str, object] | None) -> int:
        """Send a command and return its id; raises OSError when QEMU has ended."""
        self._sent += 1
        command = {"execute": name, "id": self._sent} | ({"arguments": arguments} if arguments else {})
        self._connection.sendall(json.dumps(command).encode() + b"\n")
        return self._sent

    def _receive(self, deadline: float | None) -> dict[str, Any]:
        """Return the next message; what is wanted of greeting and events is kept.

        Raises TimeoutError at the deadline, EOFError or OSError when QEMU has ended.
        """
        while b"\n" not in self._received:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            piece = self._connection.recv(_PIECE)
            if not piece:
                raise EOFError
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "QMP" in message:
            version = message["QMP"]["version"]["qemu"]
            self._version = version["major"], version["minor"], version["micro"]
        elif message.get("event") in _KEPT:
            self._events.append(message)
        return message


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
