import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.typed import CHARACTERS
from trapline.arch.mask import ExceptionMask, format_mask, parse_mask
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector, bits
from trapline.errors import UsageError

PF, GP = 1 << 14, 1 << 13
masks = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("all", FORCEABLE),
        ("none", 0),
        ("pf,gp", PF | GP),
        ("#PF GP", PF | GP),
        (" pf , gp ,", PF | GP),
        ("all,!pf", FORCEABLE & ~PF),
        ("!pf", FORCEABLE & ~PF),
        ("!#pf,!gp", FORCEABLE & ~(PF | GP)),
        ("pf,gp,!pf", GP),
        ("!pf,pf", FORCEABLE),
        ("all,!all", 0),
        ("all,!0x6000", FORCEABLE & ~(PF | GP)),
        ("0x6040", PF | GP | 1 << 6),
        ("0X6040", PF | GP | 1 << 6),
        ("14", PF),
        ("13,#pf", PF | GP),
        ("xf", 1 << 19),
        ("xm", 1 << 19),
        ("all,!nmi", FORCEABLE),
    ],
)
def test_words(text, mask):
    assert parse_mask(text) == (mask, ())


def test_a_hexadecimal_mask_drops_what_is_refused():
    parsed = parse_mask("0xffffffff")
    assert parsed.mask == FORCEABLE
    assert [row.vector for row in parsed.dropped] == [row.vector for row in VECTORS if row.refused]


def test_what_is_taken_away_is_not_reported():
    assert parse_mask("0x6,!nmi") == (2, ())


@pytest.mark.parametrize("row", [row for row in VECTORS if row.refused], ids=lambda row: row.mnemonic)
def test_naming_a_refused_vector_is_an_error_with_the_reason(row):
    words = [str(row.vector)]
    if row.vector in list(Vector):
        words += [Vector(row.vector).name, "#" + Vector(row.vector).name.lower()]
    for word in words:
        with pytest.raises(UsageError) as caught:
            parse_mask(f"all,{word}")
        assert row.refused in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no exception is named"),
        (" , ", "no exception is named"),
        ("pff", "did you mean pf"),
        ("al", "did you mean all"),
        ("zzzzzz", "'zzzzzz' names no exception$"),
        ("!", "names no exception"),
        ("32", "0 to 31"),
        ("0x100000000", "wider than the 32"),
        ("0x", "names no exception"),
        ("-1", "names no exception"),
        ("²", "names no exception"),
    ],
)
def test_mistakes_are_explained(text, words):
    with pytest.raises(UsageError, match=words):
        parse_mask(text)


@given(masks)
def test_a_mask_survives_its_words(mask):
    mask &= FORCEABLE
    assert parse_mask(format_mask(mask)) == (mask, ())


@given(masks)
def test_a_hexadecimal_number_survives(mask):
    parsed = parse_mask(hex(mask))
    assert parsed.mask | sum(row.bit for row in parsed.dropped) == mask


@given(st.text(CHARACTERS, max_size=20))
def test_any_text_is_a_mask_or_a_usage_error(text):
    try:
        mask = parse_mask(text).mask
    except UsageError:
        return
    assert mask & FORCEABLE == mask


@given(masks)
def test_every_mask_can_be_written(mask):
    assert format_mask(mask)


def test_the_shorter_form_is_written():
    assert format_mask(FORCEABLE) == "all"
    assert format_mask(FORCEABLE & ~PF) == "all,!pf"
    assert format_mask(PF | GP) == "gp,pf"
    assert format_mask(1 << 2 | 1 << 15) == "nmi,15"
    assert list(bits(parse_mask("de,xm").mask)) == [0, 19]


def test_a_mask_is_a_number_with_vectors():
    mask = ExceptionMask("pf,gp")
    assert mask == 0x6000
    assert mask.vectors() == [Vector.GP, Vector.PF]
    assert (str(mask), repr(ExceptionMask(0))) == ("gp,pf", "ExceptionMask('none')")
    assert ExceptionMask(str(ExceptionMask("all,!pf"))) == ExceptionMask("all,!pf")


@pytest.mark.parametrize("wrong", [1 << 2, 1 << 32, -1, "nmi", "pg"])
def test_what_is_not_a_mask(wrong):
    with pytest.raises(UsageError):
        ExceptionMask(wrong)
