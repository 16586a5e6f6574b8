"""`trapline dap`: a debug adapter for editors, on standard input and output or on a port."""

import argparse
import os
import sys

from .terminal import tell


def dap(options: argparse.Namespace) -> int:
    """Serve a client until it leaves; with a port, clients until KeyboardInterrupt. Return the exit code."""
    from trapline.debugger.dap.server import LOOPBACK, Connection, listen

    if options.port is not None:
        listen(options.port, lambda port: tell(f"trapline: listening on {LOOPBACK}:{port}", file=sys.stderr))
    else:
        with Connection(*_streams(), stdio=True) as connection:
            connection.serve()
    return 0


def _streams() -> tuple[int, int]:
    """Return descriptors for standard input and output. From now on those of the process lead elsewhere.

    Nothing that a library, or QEMU, reads or prints gets between the messages.
    """
    sys.stdout.flush()
    streams = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return streams
