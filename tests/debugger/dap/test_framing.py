"""Messages in a stream of bytes."""

import random

import pytest

from trapline.debugger.dap.framing import HEADER, LONGEST, Incoming, framed
from trapline.errors import UsageError

BODIES = [b"{}", b"", b"[1, 2]", b"\r\n\r\nContent-Length: 1\r\n\r\n", bytes(range(256)) * 300]


@pytest.mark.parametrize("seed", range(5))
def test_messages_come_out_as_they_went_in_however_they_are_cut(seed):
    dice = random.Random(seed)
    stream, found, incoming = b"".join(map(framed, BODIES)), [], Incoming()
    while stream:
        cut = dice.choice((1, 2, 30, 5000))
        found += incoming.feed(stream[:cut])
        stream = stream[cut:]
    assert found == BODIES
    assert incoming.is_between


def test_other_fields_of_a_header_are_passed_over():
    header = b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length:2\r\n\r\n{}"
    assert list(Incoming().feed(header)) == [b"{}"]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"hello\r\n\r\n", "without a Content-Length"),
        (b"Content-Length: -1\r\n\r\n", "without a Content-Length"),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", "without a Content-Length"),
        (b"x" * (HEADER + 1), "without the end of a header"),
        (b"Content-Length: %d\r\n\r\n" % (LONGEST + 1), "more than 16,777,216 are not read"),
        (b"Content-Length: 99999999999999999999\r\n\r\n", "without a Content-Length"),
    ],
)
def test_what_is_not_a_message_is_told(sent, message):
    with pytest.raises(UsageError, match=message):
        list(Incoming().feed(sent))


def test_half_a_message_is_waited_for():
    incoming = Incoming()
    assert list(incoming.feed(b"Content-Length: 4\r\n\r\n{")) == []
    assert not incoming.is_between
