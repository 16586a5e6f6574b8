from benchmarks.text import lines
from tests.benchmarks.made import rounds, table


def test_the_lines_of_a_table():
    one = table(
        {"bare": 1.0, "ours": 3.0},
        against=("bare",),
        times=1000,
        shares={"ours": None, "bare": None},
        counts={"ours": {"recorded": 1234}},
    )
    title, head, bare, ours, *yardsticks, share, peer = (" ".join(line.split()) for line in lines(one))
    assert title == "a table"
    assert head == "median from to / bare CPU / bare"
    assert bare == "bare 1.00 s 0.11 9.00 1.00 2.00 s 1.00"
    assert ours == "ours 3.00 s 0.33 27.00 3.00 6.00 s 3.00 1,234 recorded"
    assert [line.split(" 0.")[0] for line in yardsticks] == ["addition", "system call"]
    parts = "3000.00 us, 333 a second, 75000.0 times addition, 50000.0 times system call, 3.00 times bare"
    assert share == f"one of ours: {parts}"
    assert peer.startswith("one of bare: 1000.00 us, ")


def test_memory_is_that_of_the_median_round():
    one = table({})
    one.rounds["ours"] = type(rounds())((1.0,) * 3, (1.0,) * 3, (1 << 20, 3 << 20, 2 << 20))
    assert any(line.endswith("  2 MiB") for line in lines(one))
