import asyncio
import contextlib
import json
import socket
import threading

import pytest
from qemu.qmp import QMPClient

from trapline.errors import LaunchError
from trapline.processors.qemu import qmp as module
from trapline.processors.qemu.qmp import Qmp, read_greeting
from trapline.processors.qemu.version import check_version

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)
SECONDS = 60


class Peer(threading.Thread):
    """Plays QEMU's end: greets, agrees to the capabilities, and answers each command after what comes before."""

    def __init__(self, connection, before=b"", reply=None):
        super().__init__()
        self._connection, self.before, self._reply = connection, before, reply
        self.requests = []
        connection.settimeout(SECONDS)

    def run(self):
        with contextlib.suppress(OSError):  # the client has hung up
            self._serve()

    def _serve(self):
        self._connection.sendall(GREETING)
        received = b""
        while piece := self._connection.recv(4096):
            received += piece
            with contextlib.suppress(ValueError):  # only a part of it
                self._answer(json.loads(received))
                received = b""

    def _answer(self, request):
        self.requests.append(request)
        negotiation = request["execute"] == "qmp_capabilities"
        reply = {"return": {}} if negotiation else self._reply
        if reply is None:
            return
        same = {"id": request["id"]} if "id" in request else {}
        data = json.dumps(reply | same).encode() + b"\r\n"
        for byte in data if negotiation else self.before + data:
            self._connection.sendall(bytes([byte]))


@pytest.fixture
def connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def serve(connection):
    """Return a function that starts a peer and connects to it."""
    started = []

    def serve(*arguments):
        peer = Peer(connection[1], *arguments)
        qmp = Qmp(connection[0])
        started.append((peer, qmp))
        peer.start()
        return peer, qmp

    yield serve
    for peer, qmp in started:
        qmp.close()
        peer.join(SECONDS)


def event(name, **data):
    fields = {"event": name, "timestamp": {"seconds": 1, "microseconds": 2}}
    return json.dumps(fields | ({"data": data} if data else {})).encode() + b"\r\n"


def test_the_version_is_in_the_greeting(connection, serve):
    connection[0].settimeout(SECONDS)
    _, qmp = serve()
    assert qmp.version() == (7, 2, 22)


def test_a_greeting_that_has_not_come(connection):
    qmp = Qmp(connection[0])
    assert qmp.version(0.01) is None
    connection[1].close()
    assert qmp.version() is None
    qmp.close()


@pytest.mark.parametrize("words", [b"\n", b"{\n", b"[]\n", b'{"QMP": {}}\n', b'{"QMP": {"version": {"qemu": 7}}}\n'])
def test_without_a_greeting_there_is_no_version(connection, words):
    connection[1].send(words)
    assert read_greeting(connection[0]) is None


def test_capabilities_are_negotiated_first(serve):
    peer, qmp = serve(b"", {"return": {}})
    qmp.command("query-status")
    assert [request["execute"] for request in peer.requests] == ["qmp_capabilities", "query-status"]


def test_a_command_waits_for_its_own_reply(serve):
    peer, qmp = serve(event("STOP"), {"return": {"status": "running"}})
    assert qmp.command("query-status") == {"status": "running"}
    assert "arguments" not in peer.requests[1]


def test_a_line_of_the_human_monitor(serve):
    peer, qmp = serve(b"", {"return": ""})
    qmp.human_command("info pic")
    assert peer.requests[1]["execute"] == "human-monitor-command"
    assert peer.requests[1]["arguments"] == {"command-line": "info pic"}


def test_an_error_is_no_result(serve):
    _, qmp = serve(b"", {"error": {"class": "GenericError", "desc": "no"}})
    assert qmp.command("inject-nmi") is None


def test_a_qemu_that_does_not_answer(serve):
    _, qmp = serve()
    assert qmp.command("query-status", seconds=0.05) is None


def test_in_a_program_that_uses_asyncio(serve):
    _, qmp = serve(b"", {"return": {}})

    async def program():
        return qmp.command("query-status")

    assert asyncio.run(program()) == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_library_that_fails_is_not_waited_for(connection, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(QMPClient, "connect", fail)
    connection[1].send(GREETING)
    qmp = Qmp(connection[0])
    assert qmp.command("query-status") is None
    qmp.close()


def test_a_qemu_that_ends_as_soon_as_it_has_greeted(connection):
    connection[1].send(GREETING + b'{"return": {}}\r\n')
    connection[1].shutdown(socket.SHUT_WR)
    qmp = Qmp(connection[0])
    assert qmp.command("query-status") is None
    qmp.close()


@pytest.mark.parametrize("closed", ["before", "after"])
def test_a_qemu_that_has_ended(connection, closed):
    ours, theirs = connection
    if closed == "before":
        theirs.close()
    qmp = Qmp(ours)
    theirs.close()
    assert qmp.command("inject-nmi") is None
    assert not qmp.woke_up()
    qmp.close()
    qmp.close()


def test_a_qemu_that_ends_later(connection, serve):
    peer, qmp = serve(b"", {"return": {}})
    assert qmp.command("query-status") == {}
    connection[1].shutdown(socket.SHUT_RDWR)
    peer.join(SECONDS)
    assert qmp.command("query-status") is None
    assert not qmp.woke_up()


@pytest.mark.parametrize(
    ("names", "woke"),
    [
        ((), False),
        (("RESET",), False),
        (("SUSPEND",), True),
        (("SUSPEND", "WAKEUP"), True),
        (("RESET", "RTC_CHANGE", "SUSPEND", "STOP"), True),
        (("SUSPEND", "RESET"), False),  # somebody reset the machine that slept
        (("SUSPEND", "WAKEUP", "RESET"), False),
    ],
)
def test_waking_up_is_told_from_a_reset(serve, names, woke):
    peer, qmp = serve(b"".join(map(event, names)), {"return": {}})
    assert qmp.woke_up() == woke
    peer.before = b""
    assert not qmp.woke_up()


@pytest.mark.parametrize(
    ("slot", "function", "address", "found"),
    [(30, 7, 1 << 39, True), (30, 7, -1, False), (30, 0, 1 << 39, False), (3, 7, 1 << 39, False)],
)
def test_where_a_device_has_its_memory(serve, slot, function, address, found):
    regions = [{"bar": 0, "address": 7}, {"bar": 2, "address": address}]
    buses = [{"bus": 0, "devices": [{"slot": slot, "function": function, "regions": regions}]}]
    _, qmp = serve(b"", {"return": buses})
    assert qmp.has_memory_at(1 << 39, 30, 7) is found


def test_a_qemu_that_does_not_say_where_a_device_is(serve):
    _, qmp = serve(b"", {"error": {"class": "GenericError", "desc": "no"}})
    assert qmp.has_memory_at(1 << 39, 30, 7)


@pytest.mark.parametrize("names", [(), ("RESET",), ("RESET", "SHUTDOWN"), ("SHUTDOWN", "STOP")])
def test_why_qemu_ended_is_read_to_the_end(connection, serve, names):
    _, qmp = serve(b"", {"return": {}})
    assert qmp.command("query-status") == {}
    for name in names:
        connection[1].sendall(event(name, guest=False, reason="host-signal" if name == "SHUTDOWN" else "guest-reset"))
    connection[1].shutdown(socket.SHUT_RDWR)
    assert qmp.shutdown_reason() == ("host-signal" if "SHUTDOWN" in names else None)
    assert qmp.shutdown_reason() is None


def test_a_qemu_that_has_not_hung_up_gives_no_reason_for_its_end(serve, monkeypatch):
    monkeypatch.setattr("trapline.processors.qemu.qmp._STATUS_SECONDS", 0.05)
    _, qmp = serve(b"", {"return": {}})
    assert qmp.shutdown_reason() is None


@pytest.mark.parametrize("version", [(7, 2, 0), (7, 2, 22), (10, 0, 0)])
def test_versions_that_will_do(version):
    check_version(version)


def test_an_older_one_is_refused():
    with pytest.raises(LaunchError, match=r"7\.1\.99"):
        check_version((7, 1, 99))


def test_a_thread_that_never_ends_is_not_waited_for(connection, monkeypatch):
    """As one that imports, where an error has left the lock of imports taken."""
    freed = threading.Event()
    monkeypatch.setattr(module, "_OVER", 0.01)
    monkeypatch.setattr(module, "read_greeting", lambda connection: freed.wait(SECONDS) and None)
    qmp = Qmp(connection[0])
    try:
        qmp.close()
    finally:
        freed.set()
    qmp._thread.join(SECONDS)
    assert not qmp._thread.is_alive()
