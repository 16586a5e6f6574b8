"""A client of `trapline dap` in a process of its own, over pipes or a socket."""

import itertools
import json
import os
import socket
import subprocess
import sys

from tests.debugger.dap.schema import check

COMMAND = [sys.executable, "-m", "trapline", "dap"]
SECONDS = 120


def start(*arguments, **options):
    """Start the adapter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, env=environment, **options)


class Client:
    """What is sent and received is checked against the protocol's schema."""

    def __init__(self, port=None):
        if port is None:
            self.process = start(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._in, self._out = self.process.stdout, self.process.stdin
        else:
            self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
            self._in = self.socket.makefile("rb")
            self._out = self.socket.makefile("wb")
        self._numbers = itertools.count(1)
        self.events = []
        self._responses = {}

    def send(self, command, **arguments):
        """Send a request; return its number."""
        request = {"seq": next(self._numbers), "type": "request", "command": command, "arguments": arguments}
        check(request)
        body = json.dumps(request).encode()
        self._out.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._out.flush()
        return request["seq"]

    def receive(self):
        """Receive a message, and keep it; False: the adapter has hung up."""
        header = self._in.readline()
        if not header:
            return False
        assert self._in.readline() == b"\r\n"
        message = json.loads(self._in.read(int(header.removeprefix(b"Content-Length: "))))
        check(message)
        if message["type"] == "event":
            self.events.append(message)
        else:
            self._responses[message["request_seq"]] = message
        return True

    def ask(self, command, **arguments):
        """Send a request, and return the response."""
        number = self.send(command, **arguments)
        while number not in self._responses:
            assert self.receive(), f"no response to {command}"
        return self._responses[number]

    def get(self, command, **arguments):
        """Send a request that succeeds; return the body of the response."""
        response = self.ask(command, **arguments)
        assert response["success"], response
        return response.get("body")

    def wait(self, event):
        """Return the body of the next event of a name."""
        while True:
            for place, each in enumerate(self.events):
                if each["event"] == event:
                    del self.events[: place + 1]
                    return each.get("body")
            assert self.receive(), f"no event {event}"

    def launch(self, guest, **arguments):
        """Launch a guest, and let it run."""
        self.get("initialize", adapterID="trapline")
        self.get("launch", guest=str(guest), **arguments)
        self.get("configurationDone")

    def end(self):
        """Return the exit code and stderr of the process, which ends by itself."""
        out, err = self.process.communicate(timeout=SECONDS)
        assert out == b""
        return self.process.returncode, err.decode()
