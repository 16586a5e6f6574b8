"""Clients that come to a port while another one is served: each is told so, and then left alone."""

import contextlib
import socket
import threading
from typing import Final

from trapline.errors import UsageError

from .framing import Incoming, framed
from .messages import encode, read_request, refusal

_CHUNK: Final = 1 << 16
_PATIENCE: Final = 5.0
"""Seconds that a client has for its first request."""
_MOST: Final = 8
"""Clients that are answered at a time: more are hung up on."""
BUSY: Final = (
    "trapline serves another client on this port, and one at a time: end that session, or start trapline dap again"
)

_answering = threading.BoundedSemaphore(_MOST)


def refuse(listener: socket.socket) -> None:
    """Take the client that waits, and answer its first request with a failure. Does not wait for it."""
    with contextlib.suppress(OSError):  # it is gone already
        client, _ = listener.accept()
        if _answering.acquire(blocking=False):
            threading.Thread(target=_answer, args=(client,), name="refused client", daemon=True).start()
        else:
            client.close()


def _answer(client: socket.socket) -> None:
    incoming = Incoming()
    try:
        with client, contextlib.suppress(OSError, UsageError):  # it hangs up, or does not speak the protocol
            client.settimeout(_PATIENCE)
            request = None
            while request is None and (data := client.recv(_CHUNK)):
                request = next(map(read_request, incoming.feed(data)), None)
            if request is not None:
                client.sendall(framed(encode(refusal(request, BUSY), 1)))
                client.shutdown(socket.SHUT_WR)
                while client.recv(_CHUNK):
                    pass  # closed with something unread, the answer could be lost
    finally:
        _answering.release()
