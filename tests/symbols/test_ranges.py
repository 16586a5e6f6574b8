import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import growth
from trapline.symbols.ranges import Function, Ranges

SIZED = st.builds(Function, st.integers(0, 200), st.integers(1, 40), st.just("sized"), st.just(0))
LABEL = st.builds(Function, st.integers(0, 200), st.just(0), st.just("label"), st.just(0))


def unique(functions):
    return list({function.start: function for function in functions}.values())


@given(st.lists(SIZED | LABEL, max_size=20).map(unique), st.sets(st.integers(1, 260), max_size=4))
def test_a_lookup_is_what_a_search_through_all_functions_finds(functions, ends):
    ranges = Ranges(functions, ends)
    starts = sorted(function.start for function in functions)
    sized = [function for function in functions if function.size]
    for address in range(260):
        found = ranges.find(address)
        holders = [function for function in sized if function.start <= address < function.start + function.size]
        if found is None:
            assert not holders
        elif found.start in {function.start for function in sized}:
            assert found in holders
            assert found.start == max(function.start for function in holders)  # the innermost
        else:
            assert not holders
            assert max(start for start in starts if start <= address) == found.start
            assert any(end > address for end in ends)


@given(st.lists(SIZED, max_size=20).map(unique))
def test_a_function_answers_at_its_start_and_no_longer_behind_its_end(functions):
    ranges = Ranges(functions)
    for function in functions:
        assert ranges.find(function.start) == function
        assert ranges.find(function.start + function.size) != function


def test_a_label_ends_with_its_section_and_at_the_next():
    ranges = Ranges(
        [Function(0x10, 0, "a", 0), Function(0x20, 0, "b", 0), Function(0x100, 0, "c", 0)], ends=[0x30, 0x108]
    )
    names = {address: found and found.name for address in (0xF, 0x10, 0x1F, 0x20, 0x2F, 0x30, 0xFF, 0x107, 0x108)
             if (found := ranges.find(address)) or True}  # fmt: skip
    assert names == {
        0xF: None, 0x10: "a", 0x1F: "a", 0x20: "b", 0x2F: "b", 0x30: None, 0xFF: None, 0x107: "c", 0x108: None,
    }  # fmt: skip


def test_of_names_of_one_address_the_lowest_rank_is_shown_and_a_size_goes_first():
    ranges = Ranges(
        [Function(0, 0, "label", 0), Function(0, 8, "weak", 2), Function(0, 8, "global", 1)],
        ends=[16],
    )
    assert ranges.find(4).name == "global"
    assert ranges.find(8) is None


def test_a_label_inside_a_function_is_no_function():
    ranges = Ranges([Function(0, 16, "whole", 0), Function(8, 0, "label", 0)], ends=[64])
    assert ranges.find(9).name == "whole"


def test_a_local_label_of_nasm_does_not_hide_its_function():
    rows = [
        Function(0, 0, "main", 0),
        Function(4, 0, "main.loop", 0),
        Function(8, 0, "next", 0),
        Function(12, 0, ".x", 0),
    ]
    ranges = Ranges(rows, ends=[64])
    assert [ranges.find(at).name for at in (0, 4, 7, 8, 12)] == ["main", "main", "main", "next", ".x"]
    assert [label.name for label in ranges.labels] == ["main.loop"]
    # Of a compiler: they have a size, or another function before them.
    parts = [Function(0, 4, "main", 0), Function(4, 4, "main.part.0", 0), Function(8, 0, "other.loop", 0)]
    assert [Ranges(parts, ends=[64]).find(at).name for at in (4, 8)] == ["main.part.0", "other.loop"]


def test_nothing_is_in_an_empty_table():
    assert Ranges([]).find(0) is None


@pytest.mark.parametrize(
    ("size", "ends"),
    [(lambda number, count: 2 * (count - number), 0), (lambda number, count: count, 0), (lambda number, count: 0, 1)],
    ids=["nested", "overlapping", "without sizes"],
)
def test_twice_the_functions_take_twice_the_time(size, ends):
    def functions(count):
        return [Function(number, size(number, count), "name", 0) for number in range(count)]

    assert growth(functions, lambda each: Ranges(each, range(ends * len(each))), 400) < 2.2
