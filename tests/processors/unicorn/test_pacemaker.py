import threading
import time

import pytest

from trapline.processors.unicorn.pacemaker import Pacemaker


@pytest.fixture
def stops():
    return []


@pytest.fixture
def pacemaker(stops):
    pacemaker = Pacemaker(lambda: stops.append(time.monotonic()))
    yield pacemaker
    pacemaker.close()


def wait_for(stops, count, seconds=2.0):
    end = time.monotonic() + seconds
    while len(stops) < count and time.monotonic() < end:
        time.sleep(0.001)
    return len(stops) >= count


def test_a_cpu_that_does_not_run_is_left_alone(pacemaker, stops):
    pacemaker.set_alarm(0.0)
    time.sleep(0.02)
    assert not stops


def test_a_beat_comes_without_an_alarm(pacemaker, stops):
    pacemaker.running = True
    assert wait_for(stops, 2)
    assert 0.02 < stops[1] - stops[0] < 0.5


def test_an_alarm_stops_in_time_and_until_it_is_another(pacemaker, stops):
    pacemaker.running = True
    at = time.monotonic() + 0.01
    pacemaker.set_alarm(at)
    assert wait_for(stops, 5)
    assert stops[-1] - at < 0.045  # sooner and faster than the beat
    pacemaker.set_alarm(None)


def test_wake_ends_a_rest(pacemaker):
    waker = threading.Timer(0.02, pacemaker.wake)
    waker.start()
    begin = time.monotonic()
    pacemaker.rest(5)
    assert time.monotonic() - begin < 1
    waker.join()


def test_a_wake_before_the_rest_is_not_lost_and_counts_once(pacemaker):
    pacemaker.wake()
    begin = time.monotonic()
    pacemaker.rest(5)
    assert time.monotonic() - begin < 1
    begin = time.monotonic()
    pacemaker.rest(0.02)
    assert time.monotonic() - begin > 0.015


def test_close_ends_the_thread():
    before = threading.active_count()
    pacemaker = Pacemaker(lambda: None)
    assert threading.active_count() == before + 1
    pacemaker.close()
    assert threading.active_count() == before
