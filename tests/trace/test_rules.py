import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.typed import CHARACTERS, PRINTED
from trapline.arch.vectors import FORCEABLE, Vector, bits
from trapline.errors import UsageError
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions
from trapline.trace.rules import Expectation, Privilege, Rule, parse_expectation, parse_rule

PATTERNS = st.text(PRINTED, min_size=1, max_size=8)
RULES = st.builds(
    Rule,
    st.integers(1, (1 << 32) - 1).map(lambda mask: mask & FORCEABLE).filter(bool),
    st.sampled_from(Privilege),
    st.none() | PATTERNS.filter(lambda text: text == text.strip()),
)


def mask(*vectors):
    return sum(1 << vector for vector in vectors)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("pf", Rule(mask(Vector.PF))),
        ("any:pf", Rule(mask(Vector.PF))),
        ("kernel:gp,ud@copy_*", Rule(mask(Vector.GP, Vector.UD), Privilege.KERNEL, "copy_*")),
        ("user:pf@main*", Rule(mask(Vector.PF), Privilege.USER, "main*")),
        (" User: #GP , ud ", Rule(mask(Vector.GP, Vector.UD), Privilege.USER)),
        ("all,!pf", Rule(FORCEABLE & ~mask(Vector.PF))),
        ("!pf", Rule(FORCEABLE & ~mask(Vector.PF))),
        ("0x4000", Rule(mask(Vector.PF))),
        ("14@core::panicking::*", Rule(mask(Vector.PF), pattern="core::panicking::*")),
        ("pf@memcpy@plt", Rule(mask(Vector.PF), pattern="memcpy@plt")),
        ("kernel:pf@operator==", Rule(mask(Vector.PF), Privilege.KERNEL, "operator==")),
        ("pf@operator new", Rule(mask(Vector.PF), pattern="operator new")),
    ],
)
def test_a_rule(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@given(RULES)
def test_a_rule_survives_its_text(rule):
    assert parse_rule(str(rule)) == rule


@given(RULES, st.none() | st.integers(0, 10**6))
def test_an_expectation_survives_its_text(rule, count):
    expectation = Expectation(rule, count)
    text = str(expectation)
    if count is None and re.search(r"=[0-9]+$", text):  # a pattern that ends like a count: write =COUNT after it
        return
    assert parse_expectation(text) == expectation


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "rule '': no exception is named"),
        ("pff", "'pff' names no exception; did you mean pf"),
        ("nmi", "NMI .* cannot be forced"),
        ("none", "none leaves no exception"),
        ("0x4", "0x4 leaves no exception"),
        ("all,!all", "leaves no exception"),
        ("kernle:pf", "'kernle' is written before the colon; there are any, kernel, user; did you mean kernel"),
        (":pf", "'' is written before the colon"),
        ("user:kernel:pf", "'user:kernel' is written before the colon"),
        ("user:", "no exception is named"),
        ("pf@", "a pattern .* follows @"),
        ("pf@ ", "a pattern .* follows @"),
        ("@main", "no exception is named"),
    ],
)
def test_what_is_not_a_rule_is_refused(text, says):
    for parse in (parse_rule, parse_expectation):
        with pytest.raises(UsageError, match=says):
            parse(text)


@pytest.mark.parametrize(
    ("text", "rule", "count"),
    [
        ("pf", "pf", None), ("pf=3", "pf", 3), ("ud=0", "ud", 0), ("kernel:pf@copy_*=12", "kernel:pf@copy_*", 12),
        ("pf@operator==", "pf@operator==", None), ("pf@operator===2", "pf@operator==", 2), ("pf = 3", "pf", 3),
    ],
)  # fmt: skip
def test_an_expectation(text, rule, count):
    assert parse_expectation(text) == Expectation(parse_rule(rule), count)


@pytest.mark.parametrize("text", ["pf=", "pf=x", "pf=-1", "pf=1.5", "pf=١", "pf==", "pf=0x3", "pf=" + "9" * 30])
def test_a_count_is_a_whole_number(text):
    with pytest.raises(UsageError, match="a whole number follows ="):
        parse_expectation(text)


@given(st.text(CHARACTERS, max_size=20))
def test_any_text_is_a_rule_or_refused(text):
    for parse in (parse_rule, parse_expectation):
        try:
            found = parse(text)
        except UsageError:
            continue
        assert found == parse(str(found))


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("pf", True), ("gp", False), ("gp,pf", True), ("any:pf", True), ("kernel:pf", True), ("user:pf", False),
        ("pf@copy_user", True), ("pf@copy_*", True), ("pf@COPY_*", False), ("pf@copy", False), ("pf@*user*", True),
        ("kernel:gp,pf@c?py_[a-z]*", True), ("user:pf@copy_*", False),
    ],
)  # fmt: skip
def test_what_a_rule_matches(make_record, rule, matches):
    data = make_record(vector=14, cpl=0)
    (record,) = Exceptions(data, lookup=lambda _: Symbol("copy_user", 4))
    assert parse_rule(rule).matches(record) is matches
    (nameless,) = Exceptions(data)
    assert parse_rule(rule).matches(nameless) is (matches and "@" not in rule)


@pytest.mark.parametrize(("cpl", "whose"), [(0, "kernel"), (1, "kernel"), (2, "kernel"), (3, "user")])
def test_privilege_is_by_the_cpl(make_record, cpl, whose):
    (record,) = Exceptions(make_record(vector=6, cpl=cpl))
    assert {name for name in ("kernel", "user") if parse_rule(f"{name}:ud").matches(record)} == {whose}
    assert parse_rule("any:ud").matches(record)


def test_a_rule_without_a_pattern_is_a_mask_and_a_privilege(batches):
    @given(RULES, batches)
    def check(rule, batches):
        exceptions = Exceptions(b"".join(batches))
        rule = replace(rule, pattern=None)
        whose = [("any", "user" if record.cpl == 3 else "kernel") for record in exceptions]
        expected = [
            record
            for record, names in zip(exceptions, whose, strict=True)
            if record.vector in bits(rule.vectors) and rule.privilege.value in names
        ]
        assert [record for record in exceptions if rule.matches(record)] == expected
        assert rule.count(exceptions) == len(expected)

    check()


def test_a_rule_over_many_records_is_the_rule_over_each(batches):
    def named(address):
        return None if address % 3 == 0 else Symbol("copy_user" if address % 3 == 1 else "main", 0)

    patterns = st.none() | st.sampled_from(["copy_*", "main", "*", "nothing"])

    @given(RULES, patterns, batches)
    def check(rule, pattern, batches):
        rule = replace(rule, pattern=pattern)
        exceptions = Exceptions(b"".join(batches), lookup=named)
        assert [record.seq for record in exceptions.where(rule)] == [
            record.seq for record in exceptions if rule.matches(record)
        ]

    check()


@pytest.mark.parametrize(
    ("text", "met", "unmet"), [("pf", (1, 5), (0,)), ("pf=3", (3,), (0, 2, 4)), ("pf=0", (0,), (1,))]
)
def test_an_expectation_is_met(text, met, unmet):
    expectation = parse_expectation(text)
    assert all(expectation.met_by(count) for count in met)
    assert not any(expectation.met_by(count) for count in unmet)


@given(st.none() | st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_an_expectation_is_met_by_an_interval_if_by_each_of_its_counts(count, least, more):
    expectation = Expectation(Rule(1), count)
    met = {expectation.met_by(each) for each in range(least, least + more + 1)}
    assert expectation.met_between(least, least + more) is (met.pop() if len(met) == 1 else None)


def test_an_expectation_says_what_is_missing():
    assert parse_expectation("kernel:pf@copy_*=1200").describe(2) == "expected 1,200 of kernel:pf@copy_*, got 2"
    assert parse_expectation("ud").describe(0) == "expected at least 1 of ud, got 0"
