import json
import socket
import threading

import pytest

from trapline.errors import LaunchError
from trapline.processors.qemu.qmp import Qmp
from trapline.processors.qemu.version import check_version

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)
NEGOTIATED = b'{"return": {}, "id": 1}\r\n'


@pytest.fixture
def connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def qmp(connection):
    return Qmp(connection[0])


@pytest.fixture
def answer(connection, qmp):
    """Return a function that plays QEMU's end for one command: its reply, after what comes before it."""
    theirs = connection[1]
    theirs.settimeout(10)
    threads = []

    def serve(before, reply):
        requests = b""
        while requests.count(b"\n") < 2:
            requests += theirs.recv(4096)
        serve.request = json.loads(requests.splitlines()[1])
        theirs.sendall(GREETING + NEGOTIATED + before)
        for byte in json.dumps(reply | {"id": serve.request["id"]}).encode() + b"\r\n":
            theirs.sendall(bytes([byte]))

    def answer(before=b"", **reply):
        threads.append(threading.Thread(target=serve, args=(before, reply)))
        threads[-1].start()
        return serve

    yield answer
    for thread in threads:
        thread.join(10)


def event(name):
    return json.dumps({"event": name, "timestamp": {"seconds": 1, "microseconds": 2}}).encode() + b"\r\n"


def test_the_version_is_in_the_greeting(connection, qmp):
    assert qmp.version is None
    qmp.receive()
    assert qmp.version is None
    connection[1].send(GREETING[:20])
    qmp.receive()
    assert qmp.version is None
    connection[1].send(GREETING[20:])
    qmp.receive()
    assert qmp.version == (7, 2, 22)


@pytest.mark.parametrize("words", [b"\n", b"{\n", b"[]\n", b'{"QMP": {}}\n', b'{"QMP": {"version": {"qemu": 7}}}\n'])
def test_without_a_greeting_there_is_no_version(connection, qmp, words):
    connection[1].send(words)
    qmp.receive()
    assert qmp.version is None


def test_capabilities_are_negotiated_first(connection, qmp):
    assert json.loads(connection[1].recv(4096)) == {"execute": "qmp_capabilities", "arguments": {}, "id": 1}


def test_a_command_waits_for_its_own_reply(qmp, answer):
    served = answer(event("STOP") + b'{"return": 3, "id": 77}\r\n', **{"return": {"status": "running"}})
    assert qmp.command("query-status") == {"status": "running"}
    assert served.request == {"execute": "query-status", "arguments": {}, "id": 2}
    assert qmp.version == (7, 2, 22)


def test_a_line_of_the_human_monitor(qmp, answer):
    served = answer(**{"return": ""})
    qmp.human_command("info pic")
    assert served.request["execute"] == "human-monitor-command"
    assert served.request["arguments"] == {"command-line": "info pic"}


def test_an_error_is_no_result(qmp, answer):
    answer(error={"class": "GenericError", "desc": "no"})
    assert qmp.command("inject-nmi") is None


def test_a_qemu_that_does_not_answer(qmp):
    assert qmp.command("query-status", seconds=0.05) is None


@pytest.mark.parametrize("closed", ["before", "after"])
def test_a_qemu_that_has_ended(connection, closed):
    ours, theirs = connection
    if closed == "before":
        theirs.close()
    qmp = Qmp(ours)
    theirs.close()
    assert qmp.command("inject-nmi") is None
    qmp.receive()
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
def test_waking_up_is_told_from_a_reset(connection, qmp, names, woke):
    connection[1].send(b"".join(map(event, names)))
    assert qmp.woke_up() == woke
    assert not qmp.woke_up()


@pytest.mark.parametrize("version", [(7, 2, 0), (7, 2, 22), (10, 0, 0)])
def test_versions_that_will_do(version):
    check_version(version)


def test_an_older_one_is_refused():
    with pytest.raises(LaunchError, match=r"7\.1\.99"):
        check_version((7, 1, 99))
