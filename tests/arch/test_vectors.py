import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch.vectors import (
    CONTRIBUTORY,
    FORCEABLE,
    VECTORS,
    WITH_ERROR_CODE,
    ErrorCode,
    Kind,
    Vector,
    bit,
    bits,
    mnemonic,
)


def mask_of(*vectors):
    return sum(1 << vector for vector in vectors)


def test_each_vector_has_its_row():
    assert [row.vector for row in VECTORS] == list(range(32))


def test_the_masks():
    assert FORCEABLE == 0x2B7DFB
    assert mask_of(0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 19, 21) == FORCEABLE
    assert mask_of(8, 10, 11, 12, 13, 14, 17, 21, 29, 30) == WITH_ERROR_CODE
    assert mask_of(0, 10, 11, 12, 13, 21) == CONTRIBUTORY


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: f"{row.vector:02}")
def test_rows_are_consistent(row):
    assert row.bit == bit(row.vector) == 1 << row.vector
    named = row.vector in list(Vector)
    assert named == (row.kind is not Kind.RESERVED)
    if named:
        assert row.mnemonic.removeprefix("#") == Vector(row.vector).name
    if row.refused is not None:
        assert row.refused.endswith(".")
        assert row.refused[0].isupper() or row.refused.startswith(row.mnemonic)
    assert bool(FORCEABLE & row.bit) == (row.refused is None)


def test_refusals_say_why():
    refused = {row.vector for row in VECTORS if row.refused}
    assert refused == {2, 9, 15, 18, 20, *range(22, 32)}
    assert "RIP may be meaningless" in VECTORS[18].refused


def test_the_special_error_codes():
    assert VECTORS[Vector.DF].error_code is ErrorCode.ZERO
    assert VECTORS[Vector.TS].error_code is ErrorCode.EXITINFO1
    assert "does not promise" in VECTORS[Vector.TS].note
    assert VECTORS[Vector.AC].error_code is ErrorCode.EXITINFO1


@given(st.sets(st.integers(0, 100)))
def test_bits_walks_the_set_bits(vectors):
    assert list(bits(mask_of(*vectors))) == sorted(vectors)


def test_mnemonics():
    assert mnemonic(14) == "#PF"
    assert mnemonic(2) == "NMI"
    assert mnemonic(15) == "vector 0x0f"
    assert mnemonic(0x20) == "vector 0x20"


def test_a_vector_knows_its_mnemonic():
    assert (Vector.PF.mnemonic, Vector.NMI.mnemonic) == ("#PF", "NMI")
    assert [vector.mnemonic for vector in Vector] == [mnemonic(vector) for vector in Vector]
