"""The remote protocol of GDB, as far as QEMU's gdbstub is needed: packets, and a client that exchanges them.

A payload is sent as `$payload#checksum`. The stub never waits for the acknowledgement of a packet of its own: the next
packet counts as one. None is sent, because any byte that arrives while the guest runs stops it.
"""

import re
import select
import socket
import time
from typing import Final, NamedTuple

from trapline.errors import ProcessorError, ProcessorLost

from .process import QemuEnded

INTERRUPT: Final = b"\x03"
"""Stops the machine while it runs; answered by a stop reply."""

_PATIENCE: Final = 30.0
"""Seconds for an answer: to stop, QEMU flushes its disks."""
_PACKET: Final = re.compile(rb"\$([^$#]*)#[0-9a-f]{2}")
_WATCHED: Final = re.compile(rb"(a?)watch:([0-9a-f]+);")
_THREAD: Final = re.compile(rb"thread:([0-9a-f]+);")
_TRAP: Final = b"T05"
"""The stop reply's signal for a breakpoint, a watchpoint or a single step."""
_BUFFER: Final = 1 << 16


class CpuState(NamedTuple):
    """The output of QEMU's `info registers` for the stopped CPU: the guest's or the monitor's state."""

    code_address: int
    """Linear address of the instruction at CS:RIP."""
    cr3: int
    efer: int
    in_smm: bool
    halted: bool


class Stop(NamedTuple):
    """A stop reply."""

    trapped: bool
    """By a breakpoint, a watchpoint or a single step; otherwise the user paused the machine."""
    watched: tuple[int, bool] | None
    """The address of the watchpoint that was accessed, and whether it is one for reads as well."""
    cpu: int = 0
    """The number of the CPU that it is about."""


def encode(payload: bytes) -> bytes:
    """Return the packet of a payload."""
    return b"$%b#%02x" % (payload, sum(payload) & 0xFF)


def decode(received: bytes) -> tuple[bytes | None, bytes]:
    """Return the payload of the first whole packet, None before it has arrived, and the bytes after it."""
    match = _PACKET.search(received)
    return (match[1], received[match.end() :]) if match else (None, received.lstrip(b"+"))


def read_stop(payload: bytes) -> Stop:
    """Return what a stop reply reports."""
    watched, thread = _WATCHED.search(payload), _THREAD.search(payload)
    return Stop(
        payload.startswith(_TRAP),
        (int(watched[2], 16), bool(watched[1])) if watched else None,
        int(thread[1], 16) - 1 if thread else 0,
    )


def read_registers(text: str) -> CpuState:
    """Parse the output of `info registers`. Raises ProcessorError for text of another form."""

    def find(pattern: str) -> "re.Match[str]":
        match = re.search(pattern, text, re.MULTILINE)
        if match is None:
            raise ProcessorError(f"QEMU's registers are not understood: {text[:200]!r}")
        return match

    rip = int(find(r"^[ER]IP=([0-9a-f]+)")[1], 16)
    cs = find(r"^CS =[0-9a-f]{4} ([0-9a-f]+) .*")
    is_64_bit = " CS64 " in cs[0]
    address = rip if is_64_bit else int(cs[1], 16) + rip & 0xFFFF_FFFF
    cr3, efer = int(find(r"\bCR3=([0-9a-f]+)")[1], 16), int(find(r"^EFER=([0-9a-f]+)")[1], 16)
    return CpuState(address, cr3, efer, find(r"\bSMM=([01])")[1] == "1", find(r"\bHLT=([01])")[1] == "1")


class GdbClient:
    """Exchanges packets with the stub over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def send(self, *payloads: bytes) -> None:
        """Send packets without waiting; raises ProcessorLost when QEMU has ended."""
        self._write(b"".join(encode(payload) for payload in payloads))

    def receive(self) -> bytes:
        """Return the payload of the next packet; raises ProcessorLost when QEMU has ended or does not answer."""
        payload, self._received = decode(self._received)
        while payload is None:
            if not self._read():
                raise QemuEnded
            payload, self._received = decode(self._received)
        return payload

    def receive_within(self, seconds: float) -> bytes | None:
        """Return the same; None: there is none after that time."""
        limit = time.monotonic() + seconds
        payload, self._received = decode(self._received)
        while payload is None:
            if not select.select([self._connection], [], [], max(0.0, limit - time.monotonic()))[0]:
                return None
            if not self._read():
                raise QemuEnded
            payload, self._received = decode(self._received)
        return payload

    def poll(self) -> bytes | None:
        """Return the payload of a packet that has arrived; None: nothing but an acknowledgement, or QEMU is ending."""
        if select.select([self._connection], [], [], 0)[0]:
            self._read()
        payload, self._received = decode(self._received)
        return payload

    def command(self, payload: bytes) -> bytes:
        """Send a packet and return the payload of its answer."""
        self.send(payload)
        return self.receive()

    def acknowledge(self) -> None:
        """Tell that a packet has come which no other follows: the stub would take a byte to stop by for an answer."""
        self._write(b"+")

    def interrupt(self) -> bytes:
        """Stop the machine, which runs, or has stopped since: return the payload of the one stop reply."""
        self._write(INTERRUPT)
        return self.receive()

    def monitor(self, line: str) -> str:
        """Return what QEMU's human monitor answers to a command; the machine has to be stopped."""
        self.send(b"qRcmd," + line.encode().hex().encode())
        text = b""
        while (payload := self.receive()) != b"OK":
            if not payload.startswith(b"O"):
                raise ProcessorError(f"QEMU's gdbstub refuses {line!r}: {payload.decode(errors='replace')}")
            text += bytes.fromhex(payload[1:].decode())
        return text.decode(errors="replace")

    def _read(self) -> bool:
        """Read what has arrived; False: QEMU has hung up."""
        try:
            data = self._connection.recv(_BUFFER)
        except TimeoutError:
            raise ProcessorLost(f"QEMU's gdbstub did not answer within {_PATIENCE:.0f} seconds") from None
        except OSError:
            data = b""
        self._received += data
        return bool(data)

    def _write(self, data: bytes) -> None:
        self._connection.settimeout(_PATIENCE)
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise QemuEnded from error
