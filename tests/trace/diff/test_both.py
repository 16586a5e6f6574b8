"""Work is done for both of two values, whatever happens to the first."""

import threading

import pytest

from trapline.trace.diff.both import both


@pytest.mark.parametrize("at_once", [True, False])
def test_both_are_returned_in_order(at_once):
    assert both(lambda value: value * 2, 3, 4, at_once=at_once) == (6, 8)


def test_they_are_worked_on_at_once_and_the_first_error_is_raised():
    together = threading.Barrier(2, timeout=60)

    def fail(value):
        together.wait()
        raise ValueError(value)

    with pytest.raises(ValueError, match="first"):
        both(fail, "first", "second")
    assert together.n_waiting == 0


def test_an_error_of_the_second_alone_is_raised():
    with pytest.raises(ZeroDivisionError):
        both(lambda value: 1 // value, 1, 0)
