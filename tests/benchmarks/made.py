"""Figures that are made up."""

from benchmarks.figures import ADDITION, SYSTEM_CALL, YARDSTICK_TIMES, Machine, Measurement, Rounds, Table

MACHINE = Machine("a processor", 2, "7.2.22", "2.1.4", "3.11.2")
_YARDSTICKS = {ADDITION: 40e-9 * YARDSTICK_TIMES, SYSTEM_CALL: 60e-9 * YARDSTICK_TIMES}


def rounds(*seconds):
    """Return rounds that took twice the processor time."""
    return Rounds(seconds, tuple(2 * each for each in seconds))


def table(medians, **fields):
    """Return a table of three rounds of each candidate: its median, a lucky and an unlucky one."""
    found = {name: rounds(9 * median, median, median / 9) for name, median in (medians | _YARDSTICKS).items()}
    return Table(**{"title": "a table", "rounds": found} | fields)


def measured(**tables):
    """Return a measurement with such tables."""
    return Measurement(MACHINE, (0.5, 1.5), tables)
