"""One exception and arrays give the same answer, for random conditions and random records; so does Python itself."""

import operator

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.typed import CHARACTERS
from trapline.errors import UsageError
from trapline.machine.record import RECORD_SIZE
from trapline.symbols import Symbol
from trapline.trace.column import Kind
from trapline.trace.condition import Condition
from trapline.trace.exceptions import Exceptions
from trapline.trace.schema import COLUMNS

WORD = (1 << 64) - 1
SIGNS = ("&", "|", "^", "+", "-", "<<", ">>")
BY_KIND = {kind: [name for name, column in COLUMNS.items() if column.kind is kind] for kind in Kind}
NUMBERS = BY_KIND[Kind.NUMBER] + BY_KIND[Kind.VECTOR]
TEXTS = {
    "symbol": ("main", "copy_to", "copy_from"),
    "source": ("main.c:1", "copy.c:88"),
    **{n: COLUMNS[n].values for n in BY_KIND[Kind.TEXT] if n not in ("symbol", "source")},
}
CONSTANT = st.one_of(st.integers(0, 70), st.integers(0, WORD), st.integers(0, 63).map(lambda bit: 1 << bit))
OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def constant(value):
    return not any(name in value for name in NUMBERS)


VALUES = st.recursive(
    st.sampled_from([name for name in NUMBERS if name != "ss"]) | CONSTANT.map(hex),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(SIGNS), inner)
        .filter(lambda it: it[1] not in ("<<", ">>") or not constant(it[2]))
        .map(lambda it: f"({' '.join(it)})"),
        st.tuples(st.sampled_from("~-"), inner).map("".join),
    ),
    max_leaves=4,
)


@st.composite
def texts(draw):
    column = draw(st.sampled_from(sorted(TEXTS)))
    constant = draw(st.sampled_from(TEXTS[column]))
    return draw(
        st.sampled_from(
            [
                f"{column} == '{constant}'",
                f"{column} != '{constant}'",
                f"{column} ~ '{constant[:2]}*'",
                f"{column} in ('{constant}', '{TEXTS[column][0]}')",
                f"{column} not in ['{constant}']",
            ]
        )
    )


TESTS = st.recursive(
    st.one_of(
        st.tuples(VALUES, st.sampled_from(sorted(OPERATORS)), VALUES).map(" ".join),
        st.tuples(VALUES, st.just("<="), VALUES, st.just("<"), VALUES).map(" ".join),
        st.sampled_from(NUMBERS + BY_KIND[Kind.TRUTH]),
        st.tuples(VALUES, st.sampled_from(["in", "not in"]), st.lists(CONSTANT, min_size=1, max_size=3)).map(
            lambda it: f"{it[0]} {it[1]} ({', '.join(map(hex, it[2]))},)"
        ),
        texts(),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda it: f"({' '.join(it)})"),
        inner.map(lambda test: f"(not {test})"),
    ),
    max_leaves=4,
)  # fmt: skip


def name(address):
    return (None, Symbol("main", 0), Symbol("copy_to", 1), Symbol("copy_from", 2))[address % 4]


def test_one_exception_and_arrays_agree(batches):
    @settings(deadline=None)  # the first one loads a module
    @given(TESTS, batches, st.sampled_from([None, name]))
    def check(text, batches, lookup):
        condition = Condition(text)
        exceptions = Exceptions(b"".join(batches), first=3, lookup=lookup)
        one_by_one = [condition.matches(record) for record in exceptions]
        assert all(type(answer) is bool for answer in one_by_one)
        assert condition.mask(exceptions.batch()).tolist() == one_by_one
        assert list(exceptions.where(text)) == [r for r, met in zip(exceptions, one_by_one, strict=True) if met]

    check()


@given(st.sampled_from(["rip", "cr3", "rsp"]), st.sampled_from(sorted(OPERATORS)), CONSTANT, st.data())
def test_a_comparison_is_that_of_python(column, sign, constant, data):
    value = data.draw(CONSTANT | st.just(constant))
    record = bytearray(RECORD_SIZE)
    place = {"rip": 0x18, "cr3": 0x30, "rsp": 0x20}[column]
    record[place : place + 8] = value.to_bytes(8, "little")
    expected = OPERATORS[sign](value, constant)
    assert Condition(f"{column} {sign} {constant:#x}").matches(Exceptions(bytes(record))[0]) is expected
    assert Condition(f"{constant:#x} {sign} {column}").matches(Exceptions(bytes(record))[0]) is OPERATORS[sign](
        constant, value
    )


@settings(deadline=None)  # as above
@given(CONSTANT, CONSTANT, st.sampled_from(SIGNS))
def test_arithmetic_is_that_of_python_in_64_bits(one, two, sign):
    record = bytearray(RECORD_SIZE)
    record[0x18:0x20], record[0x20:0x28] = one.to_bytes(8, "little"), two.to_bytes(8, "little")
    if sign in ("<<", ">>"):
        expected = (one << min(two, 64) if sign == "<<" else one >> min(two, 64)) & WORD
    else:
        plain = {"&": operator.and_, "|": operator.or_, "^": operator.xor, "+": operator.add, "-": operator.sub}
        expected = plain[sign](one, two) & WORD
    exceptions = Exceptions(bytes(record))
    condition = Condition(f"rip {sign} rsp == {expected:#x}")
    assert condition.matches(exceptions[0])
    assert condition.mask(exceptions.batch()).tolist() == [True]


PIECES = st.sampled_from(
    [*COLUMNS, "pf", "==", "<", "~", "not", "and", "or", "in", "(", ")", ",", "'a*'", '"', "1", "0x1", "<<", "if",
    "#", "\\",
     "match", "lambda", ":", "{", "}", "*", "f'", "\n", "1e5", "is", "None", "!", "[", "."]
)  # fmt: skip


@given(st.lists(PIECES | st.text(CHARACTERS, max_size=3), max_size=12), st.sampled_from(["", " "]))
def test_any_text_is_a_condition_or_refused_with_a_sentence(pieces, between):
    try:
        condition = Condition(between.join(pieces))
    except UsageError:
        return
    assert condition.columns <= set(COLUMNS)
