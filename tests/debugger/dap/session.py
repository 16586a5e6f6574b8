"""Drives an adapter in this process: requests go in, and what runs the guest is run at once."""

import json

from tests.debugger.dap.schema import check
from trapline.debugger.dap.adapter import Adapter
from trapline.debugger.dap.messages import encode, read_request


class Session:
    """A client. Each message that it sends and gets is checked against the protocol's schema."""

    def __init__(self, *, stdio=False):
        self.messages = []
        self._seq = 0
        self.adapter = Adapter(self._take, stdio=stdio)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.adapter.leave()

    def _take(self, message):
        found = json.loads(encode(message, len(self.messages) + 1))
        check(found)
        self.messages.append(found)

    def ask(self, command, **arguments):
        """Send a request, run the guest where it says so, and return the response."""
        self._seq += 1
        request = {"seq": self._seq, "type": "request", "command": command, "arguments": arguments}
        check(request)
        work = self.adapter.handle(read_request(json.dumps(request).encode()))
        while work is not None:
            work = self.adapter.ran(work())
        return next(each for each in reversed(self.messages) if each.get("request_seq") == self._seq)

    def get(self, command, **arguments):
        """Send a request that succeeds; return the body of the response."""
        response = self.ask(command, **arguments)
        assert response["success"], response["message"]
        return response.get("body")

    def refused(self, command, **arguments):
        """Send a request that fails; return the reason."""
        response = self.ask(command, **arguments)
        assert not response["success"], response
        return response["message"]

    def launch(self, guest, *, filters=(), **arguments):
        """Launch a guest, and stop at its first instruction."""
        self.get("initialize", adapterID="trapline")
        self.get("launch", guest=str(guest), stopOnEntry=True, **arguments)
        self.get("setExceptionBreakpoints", filters=list(filters))
        self.get("configurationDone")
        return self

    def events(self, name):
        """Return the bodies of events."""
        return [each.get("body") for each in self.messages if each.get("event") == name]

    @property
    def stop(self):
        """The last event that says why the guest stopped."""
        return self.events("stopped")[-1]

    def run(self, command="continue", **arguments):
        """Let the guest run, or step; return the event of the stop."""
        before = len(self.events("stopped"))
        self.get(command, threadId=1, **arguments)
        assert len(self.events("stopped")) == before + 1, self.messages[-3:]
        return self.stop

    def value(self, expression):
        """Return what an expression is."""
        return self.get("evaluate", expression=expression, context="watch")["result"]

    def scope(self, name):
        """Return the values of a group by name."""
        scopes = self.get("scopes", frameId=1)["scopes"]
        reference = next(each["variablesReference"] for each in scopes if each["name"] == name)
        found = self.get("variables", variablesReference=reference)["variables"]
        return {each["name"]: each for each in found}
