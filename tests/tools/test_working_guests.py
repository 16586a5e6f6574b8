"""A guest that works is not accused wherever it is stopped, and one that is stuck in a handler is."""

import pytest

from tools.broken_guests.generate import generate
from tools.broken_guests.handlers import LOOPS
from tools.broken_guests.planted import FAULTS
from tools.working_guests import Guest, watch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("broken", [True, False])
def test_only_a_guest_that_is_stuck_is_accused(broken, tmp_path):
    (fault,) = (each._replace(styles=[LOOPS]) for each in FAULTS if each.name == "divide")
    made, path = generate("working", [fault]), tmp_path / "guest"
    path.write_bytes(made.image if broken else made.twin)
    _, told = next(watch(Guest(lambda: path), 0.3, 30, "unicorn"), (0, None))
    assert told is None if not broken else "div by" in told
