import socket

import pytest

from trapline.errors import LaunchError
from trapline.processors.qemu.qmp import Qmp
from trapline.processors.qemu.version import check_version

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)


@pytest.fixture
def connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_version_is_in_the_greeting_and_the_greeting_stays(connection):
    ours, theirs = connection
    theirs.send(GREETING)
    assert Qmp(ours).version() == (7, 2, 22)
    assert ours.recv(4096) == GREETING


@pytest.mark.parametrize("words", [b"", b"{", b"[]", b'{"QMP": {}}'])
def test_without_a_greeting_there_is_no_version(connection, words):
    ours, theirs = connection
    if words:
        theirs.send(words)
    assert Qmp(ours).version() is None


@pytest.mark.parametrize("version", [(7, 2, 0), (7, 2, 22), (10, 0, 0)])
def test_versions_that_will_do(version):
    check_version(version)


def test_an_older_one_is_refused():
    with pytest.raises(LaunchError, match=r"7\.1\.99"):
        check_version((7, 1, 99))
