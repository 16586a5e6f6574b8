import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType, combine, decode, encode, is_software
from trapline.arch.vectors import VECTORS, Vector

events = st.builds(Event, st.integers(0, 255), st.integers(0, 7), st.none() | st.integers(0, 2**32 - 1))
exceptions = st.builds(Event, st.integers(0, 255), st.just(EventType.EXCEPTION))


@given(events)
def test_an_event_survives_its_word(event):
    assert decode(encode(event)) == event


@given(st.integers(0, 2**64 - 1))
def test_a_word_survives_but_for_its_reserved_bits(word):
    event = decode(word)
    if not word & 1 << 31:
        assert event is None
    elif word & 1 << 11:
        assert encode(event) == word & 0xFFFF_FFFF_8000_0FFF
    else:
        assert encode(event) == word & 0x8000_0FFF


def test_known_words():
    assert encode(Event(14, EventType.EXCEPTION, 2)) == 0x2_8000_0B0E
    assert encode(Event(0x20, EventType.INTR)) == 0x8000_0020
    assert decode(0x8000_0202) == Event(2, EventType.NMI)


@pytest.mark.parametrize("event", [Event(256, 3), Event(-1, 3), Event(0, 8), Event(13, 3, 2**32), Event(13, 3, -1)])
def test_what_does_not_fit_is_refused(event):
    with pytest.raises(ValueError, match=r"an event word cannot hold|wider than 32"):
        encode(event)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(14, 3, 2), "#PF(0x2)"),
        (Event(6, 3), "#UD"),
        (Event(2, 2), "NMI"),
        (Event(0x20, 0), "interrupt 0x20"),
        (Event(0x80, 4), "INT 0x80"),
        (Event(1, 5), "event of type 5, vector 0x01"),
    ],
)
def test_events_read_as_words(event, words):
    assert str(event) == words


# Written by hand from the manual: B benign, C contributory, P page fault, D double fault.
LETTERS = "CBBBBBBBDBCCCCPBBBBBBCBBBBBBBCCB"
OUTCOMES = {
    "B": {"B": "new", "C": "new", "P": "new", "D": "new"},
    "C": {"B": "new", "C": "#DF", "P": "new", "D": "new"},
    "P": {"B": "new", "C": "#DF", "P": "#DF", "D": "new"},
    "D": {"B": "shutdown", "C": "shutdown", "P": "shutdown", "D": "shutdown"},
}


@pytest.mark.parametrize("first", range(32))
def test_exceptions_combine_by_class(first):
    for second in range(32):
        queued = Event(second, EventType.EXCEPTION, second)
        outcome = combine(Event(first, EventType.EXCEPTION, 0), queued)
        expected = {"new": queued, "#DF": Event(8, 3, 0), "shutdown": SHUTDOWN}
        assert outcome == expected[OUTCOMES[LETTERS[first]][LETTERS[second]]], (first, second)


@given(exceptions)
def test_nothing_in_flight_changes_nothing(queued):
    assert combine(None, queued) is queued


@given(st.integers(0, 255), st.sampled_from([0, 1, 2, 4, 5, 6, 7]), exceptions)
def test_what_is_no_exception_is_benign(vector, kind, queued):
    assert combine(Event(vector, kind), queued) is queued


@given(st.integers(0, 255), st.sampled_from([0, 2, 4]))
def test_what_is_no_exception_never_combines(vector, kind):
    queued = Event(vector, kind)
    assert combine(DOUBLE_FAULT, queued) is queued


def test_the_double_fault():
    assert Event(Vector.DF, EventType.EXCEPTION, 0) == DOUBLE_FAULT
    assert VECTORS[DOUBLE_FAULT.vector].mnemonic == "#DF"


def test_a_vector_beyond_the_table_is_benign():
    queued = Event(13, 3, 0)
    assert combine(Event(0x20, 3), queued) is queued


@pytest.mark.parametrize(
    ("vector", "kind", "software"),
    [
        (3, EventType.EXCEPTION, True),
        (4, EventType.EXCEPTION, True),
        (3, EventType.SOFT, True),
        (0x80, EventType.SOFT, True),
        (3, EventType.INTR, False),
        (2, EventType.NMI, False),
        (1, EventType.EXCEPTION, False),
        (5, EventType.EXCEPTION, False),
        (14, EventType.EXCEPTION, False),
    ],
)
def test_events_that_an_instruction_asks_for(vector, kind, software):
    assert is_software(Event(vector, kind)) is software
