"""Tests of guests with the pytest plugin: `pytest examples/test_guest.py`."""

import pytest

from trapline import DISCARD, Decision, ExceptionExit, GuestFailed, Vector
from trapline.testing.guests import Guests


def test_pages_are_mapped_on_demand(trapline: Guests) -> None:
    run = trapline.run("sample:demand-paging", exceptions="all", timeout=60)
    run.check()  # it ended well
    run.never("ud", "gp", "df")
    faults = run.expect("kernel:pf", count=64)
    assert all(fault.error_code == 2 for fault in faults), "each is a write to a page that is not present"
    assert b"done" in run.console


def test_the_kernel_needs_an_idt(trapline: Guests) -> None:
    run = trapline.run("sample:no-idt", exceptions="all", timeout=60)
    with pytest.raises(GuestFailed, match="no IDT is loaded"):
        run.check()


def test_a_guest_that_never_sees_its_exception(trapline: Guests) -> None:
    machine = trapline.machine("sample:ud")

    @machine.on(Vector.UD)
    def undefined(exc: ExceptionExit) -> Decision:
        exc.rip += 2
        return DISCARD

    machine.console.read_until(b"nothing was raised", timeout=60)
