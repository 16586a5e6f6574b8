from tools.gdb_fuzzing import play


def test_random_packets_and_damaged_sessions_are_answered():
    assert play(200, 40, "suite") == []
