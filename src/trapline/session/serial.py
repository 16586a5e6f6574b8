"""The line between the guest's first serial port under QEMU and a console."""

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Sequence
from typing import Final

from trapline.processors.qemu.command import takes_stdio
from trapline.processors.qemu.process import Files

from .console import Console

_PIECE: Final = 1 << 16
_CAPACITY: Final = 1 << 20
"""Bytes that a pipe holds, where the system permits it."""
_ID: Final = "trapline.console"


class SerialLine:
    """Both ends of a line.

    Guests that do not ask whether the transmitter is ready, which on QEMU it always is, lose what a full line cannot
    hold. So it is a pair of pipes on QEMU's standard input and output. Where `options` of the user take these it is a
    socket, which is full after some hundred bytes that nobody has read.
    """

    def __init__(self, options: Sequence[str]) -> None:
        if takes_stdio(options):
            ours, theirs = (end.detach() for end in socket.socketpair())
            self._read, self._write = ours, os.dup(ours)
            self._theirs: tuple[int, ...] = (theirs,)
            self.files = Files(inherited=self._theirs)
            backend = f"socket,id={_ID},fd={theirs}"
        else:
            stdin, self._write = os.pipe()
            self._read, stdout = os.pipe()
            self._theirs = stdin, stdout
            self.files = Files(stdin, stdout)
            with contextlib.suppress(OSError):  # the user has many pipes already
                fcntl.fcntl(self._read, fcntl.F_SETPIPE_SZ, _CAPACITY)
            backend = f"stdio,id={_ID},signal=off"
        self.serial: list[str] = ["-chardev", backend, "-serial", f"chardev:{_ID}"]
        """QEMU's options for its end."""
        self._reader: threading.Thread | None = None

    def close_other_end(self) -> None:
        """Close QEMU's end in this process, once QEMU has it."""
        for descriptor in self._theirs:
            os.close(descriptor)

    def connect(self, console: Console) -> None:
        """Pass the guest's output to a console, in a thread until QEMU ends, and the console's input to the guest."""
        self._reader = threading.Thread(target=self._pass_on, args=(console,), name="console", daemon=True)
        self._reader.start()
        console.connect(self._send)

    def close(self) -> None:
        """Take the rest of the output, and close this end. QEMU has ended, or never started."""
        if self._reader is not None:
            self._reader.join()
        os.close(self._read)
        os.close(self._write)

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write, data) :]

    def _pass_on(self, console: Console) -> None:
        while data := self._receive():
            console.take_apart(data)

    def _receive(self) -> bytes:
        try:
            return os.read(self._read, _PIECE)
        except OSError:
            return b""
