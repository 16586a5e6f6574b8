from benchmarks.decision import round_trips


def test_a_round_trip_of_an_eventfd_takes_its_time():
    assert 0 < round_trips(10) < 10
