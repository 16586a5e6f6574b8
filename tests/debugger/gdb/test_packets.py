"""Packets: bytes in, bytes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trapline.debugger.gdb.packets import LARGEST, Decoder, Mark, encode, escape, unescape


def test_the_example_of_the_manual():
    assert encode(b"OK") == b"$OK#9a"


@given(st.binary())
def test_any_data_comes_back(data):
    escaped = escape(data)
    assert not set(escaped) & set(b"#$*")
    assert unescape(escaped) == data


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=40).map(escape) | st.sampled_from([Mark.ACK, Mark.NACK, Mark.INTERRUPT])), st.data())
def test_packets_are_found_however_they_are_cut(sent, data):
    codes = {Mark.ACK: b"+", Mark.NACK: b"-", Mark.INTERRUPT: b"\x03"}
    stream = b"".join(codes[each] if isinstance(each, Mark) else encode(each) for each in sent)
    decoder, found = Decoder(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += decoder.feed(stream[:size])
        stream = stream[size:]
    assert found == sent


@pytest.mark.parametrize("stream", [b"$OK#9b", b"$OK#xx", b"$" + b"a" * (LARGEST + 2)])
def test_damaged_packets(stream):
    decoder = Decoder()
    assert decoder.feed(stream) == [Mark.DAMAGED]
    assert decoder.feed(b"$OK#9a") == [b"OK"]


def test_the_longest_packet():
    payload = b"a" * LARGEST
    assert Decoder().feed(encode(payload)) == [payload]


def test_what_is_between_packets_is_ignored():
    assert Decoder().feed(b"hello$OK#9a\r\n$OK#9a") == [b"OK", b"OK"]
