import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.figures import ADDITION, PATH, Figures, Measurement, Rounds, Table, load, save, text
from benchmarks.run import BENCHMARKS
from tests.benchmarks.made import MACHINE, measured, table

numbers = st.lists(st.floats(0, 1e6), max_size=9).map(tuple)
names = st.text('ab[]{}:," \n\\ü', max_size=8)
counted = st.dictionaries(names, st.integers(0, 2**60), max_size=2)
tables = st.builds(
    Table,
    title=names,
    rounds=st.dictionaries(names, st.builds(Rounds, seconds=numbers, used=numbers), max_size=3),
    against=st.lists(names, max_size=2).map(tuple),
    times=st.integers(1, 10**7),
    shares=st.dictionaries(names, st.none() | names, max_size=2),
    counts=st.dictionaries(names, counted, max_size=2),
)
loads = st.tuples(st.floats(0, 99), st.floats(0, 99))
measurements = st.builds(
    Measurement, machine=st.just(MACHINE), load=loads, tables=st.dictionaries(names, tables, max_size=2)
)


@settings(max_examples=20)
@given(st.dictionaries(names, measurements, max_size=2))
def test_a_file_keeps_all_that_was_measured(figures):
    assert msgspec.json.decode(text(figures), type=Figures) == figures


def test_the_rounds_of_a_candidate_are_one_line():
    assert '"seconds": [27.0, 3.0, 0.3333333333333333],\n' in text({"a": measured(t=table({"one": 3.0}))})


def test_what_is_saved_replaces_its_own_benchmarks(tmp_path):
    path = tmp_path / "figures.json"
    assert load(path) == {}
    old, new = measured(t=table({"one": 3.0})), measured(t=table({"one": 2.0}))
    save({"a": old, "b": old}, path)
    save({"b": new, "c": new}, path)
    assert load(path) == {"a": old, "b": new, "c": new}


def test_ratios_are_those_of_medians():
    one = table({"ours": 3.0, "theirs": 2.0})
    assert one.ratio("ours", "theirs") == one.ratio("ours", "theirs", "used") == 1.5
    assert (one.median("ours"), one.median("ours", "used")) == (3.0, 6.0)


def test_one_exception_costs_what_a_run_costs_more_than_the_same_without():
    one = table({"all": 3.0, "none": 1.0, "bare": 1.0}, times=1000, shares={"all": "none", "bare": None})
    assert one.share("all") == pytest.approx(2e-3)
    assert one.share("bare") == pytest.approx(1e-3)
    assert one.unit(ADDITION) == pytest.approx(40e-9)


def test_the_committed_figures_are_of_benchmarks_that_there_are():
    assert load(PATH).keys() <= BENCHMARKS.keys()
