"""What is to be sent to a client, from any thread."""

import socket
import threading
from collections import deque
from typing import Final

from . import bodies
from .framing import framed
from .messages import Event, Message, encode

_ROOM: Final = 1 << 20
"""Characters of the guest's console that wait at most: then the guest waits for the client."""
_WAKE: Final = b"."


class Outbox:
    """A queue of messages. `fileno` is readable when there are some. The thread that makes it is the one that sends."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._seq = 0
        self._sender = threading.get_ident()
        self._ours, self._theirs = socket.socketpair()
        self._is_closed = False

    def fileno(self) -> int:
        """Return a file descriptor that is readable when there are messages."""
        return self._ours.fileno()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._messages

    @property
    def is_console(self) -> bool:
        """Whether what waits is output of the guest and nothing else."""
        with self._changed:
            return (
                bool(self._messages)
                and all(_is_console(message) for message in self._messages)
                and self._waiting < _ROOM
            )

    def post(self, message: Message) -> None:
        """Add a message. Output of the guest waits for room, unless this is the thread that sends."""
        body = message.body if isinstance(message, Event) else None
        text = body.output if isinstance(body, bodies.Output) else ""
        with self._changed:
            if text and threading.get_ident() != self._sender:
                self._changed.wait_for(lambda: self._waiting < _ROOM or self._is_closed)
            if self._is_closed:
                return
            self._waiting += len(text)
            if not self._joined(message):
                self._messages.append(message)
                if len(self._messages) == 1:
                    self._theirs.send(_WAKE)

    def take(self) -> bytes:
        """Return all messages as they are sent."""
        with self._changed:
            if self._messages:
                self._ours.recv(1)
            messages = list(self._messages)
            self._messages.clear()
            self._waiting = 0
            self._changed.notify_all()
        parts = []
        for message in messages:
            self._seq += 1
            parts.append(framed(encode(message, self._seq)))
        return b"".join(parts)

    def close(self) -> None:
        """Drop what is not sent, and what is posted from now on."""
        with self._changed:
            self._is_closed = True
            self._messages.clear()
            self._changed.notify_all()
        self._ours.close()
        self._theirs.close()

    def _joined(self, message: Message) -> bool:
        """Add output to output that waits: a guest may write each character by itself."""
        last = self._messages[-1] if self._messages else None
        if not (isinstance(message, Event) and isinstance(last, Event)):
            return False
        new, old = message.body, last.body
        if isinstance(new, bodies.Output) and isinstance(old, bodies.Output) and new.category == old.category:
            old.output += new.output
            return True
        return False


def _is_console(message: Message) -> bool:
    return isinstance(message.body, bodies.Output) and message.body.category == bodies.CONSOLE
