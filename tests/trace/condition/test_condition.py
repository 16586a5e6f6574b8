import timeit
from types import SimpleNamespace

import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.mask import parse_mask
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.errors import UsageError
from trapline.machine.record import RecordFlags
from trapline.symbols import Symbol
from trapline.trace.condition import Condition, parse_stop
from trapline.trace.exceptions import Exceptions

HIGHEST = (1 << 64) - 1
ANY = "^condition "
PF = {
    "vector": 14, "flags": RecordFlags.HAS_ERROR_CODE | RecordFlags.HAS_ADDRESS | RecordFlags.FORWARDED,
    "error_code": 6, "address": 0x1000, "cpl": 3, "rip": 0x40_1000, "ss": 12, "rflags": 0x246, "cr3": HIGHEST,
    "exit_int_info": encode(Event(0x20, EventType.INTR)), "event": encode(Event(14, EventType.EXCEPTION, 6)),
    "cr0": 0x8000_0011, "efer": 0x1500, "dr6": 0xFFFF_0FF0, "tsc": 5, "cs": 0x33, "rsp": 0x7FFF_F000, "cr4": 0x20,
}  # fmt: skip
UD = {"vector": 6, "flags": RecordFlags.DISCARDED, "error_code": 6, "address": 0x1000, "rip": 0x7C00}


def name(address):
    return Symbol("copy_user_generic", 4) if address == 0x40_1000 else None


@pytest.fixture
def page_fault(make_record):
    return Exceptions(make_record(**PF), first=7, lookup=name)


@pytest.fixture
def invalid_opcode(make_record):
    return Exceptions(make_record(**UD), lookup=name)


def holds(text, exceptions):
    condition = Condition(text)
    found = condition.matches(exceptions[0])
    assert condition.mask(exceptions.batch()).tolist() == [found]
    return found


@pytest.mark.parametrize(
    "text",
    [
        "vector == pf", "vector == PF", "vector == 14", "vector == '#PF'", "'pf' == vector", "pf == vector",
        "vector != ss", "ss == 12", "12 == ss", "vector in (ss, pf)", "vector in [gp, 14]",
        "vector in {'#PF', '#gp'}",
        "ss in (ss,)", "pf in (14, 13)", "vector not in (gp,)",
        "cpl == 3", "cpl", "cpl > 2 and seq == 7", "0 < cpl < 4", "4 > cpl > 0 != seq", "not cpl == 0", "not not cpl",
        "address == 0x1000", "0x1000 <= address < 0x2000", "has_address", "has_error_code and error_code == 6",
        "error_code & 2", "error_code & 1 | error_code & 4", "error_code ^ 6 == 0", "error_code >> 1 & 1",
        "1 << vector & 0x4000", "address + 0x1000 == 0x2000", "address - 0x2000 == -0x1000", "-address >= -0x1000",
        "~address & 0xFFF == 0xFFF", "cr3 == -1", "cr3 + 1 == 0", "cr3 == ~0", "cr3 << 63 == 1 << 63",
        "cr3 << vector << vector << vector << vector << vector == 0", "cr3 >> address == 0",
        "symbol == 'copy_user_generic'", 'symbol ~ "copy_*"', "match(symbol, 'copy_*')", "not symbol ~ 'COPY_*'",
        "symbol ~ 'copy_[a-z]*ic' and not symbol ~ 'copy'", "symbol in ('main', 'copy_user_generic')",
        "symbol != 'main'", "symbol not in ('main',)", "has_symbol",
        "mode == 'long'", "outcome == 'forwarded'", "vectoring == 0x20", "vectoring_type == 'intr'", "has_vectoring",
        "injected == pf and injected_type ~ 'exc*'", "has_injected", "not synthesized", "True", "not False",
        "linear_rip == rip", "(cpl\n== 3)", " cpl == 3 ",
    ],
)  # fmt: skip
def test_what_is_true_of_a_page_fault(page_fault, text):
    assert holds(text, page_fault) is True


@pytest.mark.parametrize(
    "text",
    ["vector == ss", "vector == gp", "cpl == 0", "address < 0x1000", "symbol ~ 'user*'", "symbol ~ '*~'",
    "0 < cpl < 3",
     "cpl == 3 == 4", "seq < 7 or vcpu == 1", "mode == 'v86'", "synthesized", "1 == 2", "cpl - 3", "not True"],
)  # fmt: skip
def test_what_is_false_of_a_page_fault(page_fault, text):
    assert holds(text, page_fault) is False


@pytest.mark.parametrize("column", ["address", "error_code", "vectoring", "injected", "address + error_code"])
@pytest.mark.parametrize(
    "test", ["{} == 0", "{} != 0", "0 < {}", "{} >= 0", "({}) in (0, 1)", "({}) not in (0, 1)", "{}", "({}) & 1 == 0"]
)
def test_every_comparison_with_a_missing_number_is_false(invalid_opcode, column, test):
    assert holds(test.format(column), invalid_opcode) is False
    assert holds(f"not ({test.format(column)})", invalid_opcode) is True


@pytest.mark.parametrize("test", ["{} == 'nmi'", "{} != 'nmi'", "{} in ('nmi',)", "{} not in ('nmi',)", "{} ~ '*'"])
@pytest.mark.parametrize("column", ["symbol", "vectoring_type"])
def test_every_comparison_with_a_missing_text_is_false(invalid_opcode, column, test):
    assert holds(test.format(column), invalid_opcode) is False


@pytest.mark.parametrize("column", ["has_address", "has_error_code", "has_symbol", "has_vectoring", "has_injected"])
def test_whether_there_is_a_value_can_be_asked(invalid_opcode, page_fault, column):
    assert holds(column, invalid_opcode) is False
    assert holds(column, page_fault) is True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("verctor == pf", "no column verctor; did you mean vector .*Columns: seq, vector.*Exceptions: de, db"),
        ("zzz == 1", r"no column zzz\. Columns: "),
        ("vector == pff", "no column pff; did you mean .*pf"),
        ("Pf == vector", "no column Pf"),
        ("vector == '#QQ'", "'#QQ' names no exception"),
        ("vector in ('pff',)", "'pff' names no exception; did you mean pf"),
        ("mode == 'lnog'", "mode is one of real, protected, v86, long"),
        ("outcome in ('forwarded', 'lost')", "outcome is one of forwarded, combined"),
        ("", "empty"), (" \n", "empty"),
        ("pf", "always 14, which is not a condition: perhaps vector == pf"),
        ("1 + 1", "always 2"), ("cpl == 0 and pf", "perhaps vector == pf"),
        ("symbol", "text is not a condition"), ("'main'", "text is not a condition"),
        ("not symbol", "not a condition"),
        ("symbol == 1", "two numbers"), ("cpl == 'x'", "a number is compared with a text"),
        ("'a' == 'b'", "two numbers"),
        ("symbol == mode", "two numbers"), ("has_address == 1", "two numbers"), ("True == True", "two numbers"),
        ("symbol < 'main'", "text has no order"), ("'main' < symbol", "text has no order"),
        ("address is None", "has_address"), ("address is not None", "has_address"),
        ("address == None", "constants are"),
        ("address == 1.5", "constants are integers"), ("address == 1j", "constants are"),
        ("cpl == ...", "constants are"),
        ("address == 0x1_0000_0000_0000_0000", "64 bits"), ("cpl << 64", "64 bits"), ("1 << 10**9", "not a part"),
        ("1 << 1000000000", "64 bits"), ("cpl >> 64", "64 bits"),
        ("cpl ** 2", "not a part"), ("cpl * 2", "not a part"), ("cpl / 2", "not a part"), ("+cpl", "not a part"),
        ("symbol + 'a' == 'b'", "'a': not a number"), ("-has_address", "has_address: not a number"),
        ("cpl in 3", "list of constants"), ("vector in ()", "list of constants"), ("symbol in 'abc'", "list of"),
        ("cpl in (3, rip)", "`in` takes"), ("cpl in ('3',)", "compared with a text"),
        ("symbol in ('a', 1)", "`in` takes"),
        ("has_address in (1,)", "`in` takes"), ("cpl in (*(1, 2),)", "not a part"),
        ("match(symbol)", "not a part"), ("match(cpl, 'a')", "match takes"), ("match(symbol, cpl)", "match takes"),
        ("match(symbol, pattern='a')", "not a part"), ("print(1)", "not a part"), ("match", "no column match"),
        ("symbol ~ cpl", "~ takes"), ("cpl == 1 ~ 'a'", "~ takes"),
        ("symbol ~", "~ takes"),
        ("(symbol) ~ 'a'", "~ takes"), ("cpl ~ 'a'", "match takes"), ("symbol ~ 'a' 'b'", "invalid syntax"),
        ("cpl.real", "not a part"), ("cpl[0]", "not a part"), ("lambda: 0", "not a part"),
        ("(cpl := 3)", "not a part"),
        ("cpl if cpl else cpl", "not a part"), ("[cpl for cpl in cpl]", "not a part"), ("cpl, cpl", "not a part"),
        ("__import__('os')", "not a part"), ("await cpl", "not a part"), ("cpl == (yield)", "not a part"),
        ("cpl = 0", "invalid syntax"), ("cpl ==", "invalid syntax"), ("(cpl", ANY),
        ("cpl == 0; cpl", "invalid syntax"),
        ("#pf", "pf, not #pf"), ("cpl $ 2", "not a part|invalid syntax"), ("'a", ANY), ("cpl\0", ANY), ("\ud800", ANY),
        ("cpl \\", ANY),
        (r"symbol == 'a\x41'", "without a backslash"), ("symbol == f'a'", ANY),
        ("symbol == b'a'", "without a prefix"),
        ("cpl == 0x1for", "neither a number nor a name"), ("1or 2", "neither a number nor a name"),
        ("cpl == " + "9" * 900, ANY), ("~" * 900 + "cpl", ANY), ("(" * 400 + "cpl" + ")" * 400, ANY),
        ("not " * 60 + "cpl", "nested more than 50"), ("cpl" + "+cpl" * 60, "nested more than 50"),
        ("cpl or " * 200 + "cpl", "1000 characters at most"),
    ],
)  # fmt: skip
def test_what_is_not_a_condition_is_refused(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        Condition(text)
    assert len(str(caught.value)) < 800


def test_a_live_exception_has_no_outcome():
    assert Condition("cpl == 0 and vectoring == df", live=True).columns == {"cpl", "vectoring"}
    for text in ("outcome == 'forwarded'", "injected == gp", "has_injected"):
        Condition(text)
        with pytest.raises(UsageError, match="known only after the exception was delivered"):
            Condition(text, live=True)


def test_only_the_columns_that_are_needed_are_read():
    condition = Condition("vector == pf and cpl == 0 or vector == gp")
    assert condition.columns == {"vector", "cpl"}
    assert condition.matches(SimpleNamespace(vector=Vector.PF, cpl=0))
    assert not condition.matches(SimpleNamespace(vector=6))  # cpl is not asked for
    assert condition.matches(SimpleNamespace(vector=13))


def test_a_condition_shows_its_text():
    assert (str(Condition("cpl")), repr(Condition("cpl == 0"))) == ("cpl", "Condition('cpl == 0')")


@pytest.mark.parametrize(
    ("text", "vectors", "condition"),
    [
        ("pf", "pf", None), ("all,!pf", "all,!pf", None), ("pf if cpl == 0", "pf", "cpl == 0"),
        ("pf,gp if cpl == 0 and address < 0x1000", "pf,gp", "cpl == 0 and address < 0x1000"),
        ("if cpl", "all", "cpl"), ("pf\tif\tcpl", "pf", "cpl"),
        ("pf if symbol ~ 'if x if y'", "pf", "symbol ~ 'if x if y'"),
    ],
)  # fmt: skip
def test_a_stop(text, vectors, condition):
    stop = parse_stop(text)
    assert (stop.text, stop.vectors) == (text, parse_mask(vectors).mask)
    assert (None if stop.condition is None else stop.condition.text.strip()) == condition


def test_all_that_can_be_forced_stop_without_a_list():
    assert parse_stop("if cpl == 3").vectors == FORCEABLE


@pytest.mark.parametrize(
    ("text", "says"),
    [("pf if", "a condition follows"), ("pf if  ", "a condition follows"), ("if", "a condition follows"),
     ("pff if cpl", "stop 'pff if cpl': 'pff' names no exception"), ("pf if outcome == 'shutdown'", "only after"),
     ("", "no exception is named"), ("none", "leaves no exception"), ("cpl == 0", "follows `if`: if cpl == 0"),
     ("nmi", "cannot be forced")],
)  # fmt: skip
def test_what_is_not_a_stop_is_refused(text, says):
    with pytest.raises(UsageError, match=says):
        parse_stop(text)


@pytest.mark.parametrize(
    ("text", "matches"),
    [("pf", True), ("gp", False), ("gp if cpl == 3", False), ("pf if cpl == 3", True), ("pf if cpl == 0", False),
     ("if cpl == 3", True)],
)  # fmt: skip
def test_a_stop_is_about_its_vectors_and_its_condition(page_fault, text, matches):
    assert page_fault[0].cpl == 3
    assert parse_stop(text).matches(page_fault[0]) is matches


def test_a_condition_on_one_exception_takes_microseconds(page_fault):
    condition, record = Condition("vector == pf and cpl == 3 and 0x1000 <= address < 0x2000"), page_fault[0]
    best = min(timeit.repeat(lambda: condition.matches(record), number=1000, repeat=20)) / 1000
    assert condition.matches(record)
    assert best < 20e-6  # 1 us on an idle machine
