import re
from pathlib import Path

import pytest
from hypothesis import given

from trapline.arch.registers import CR0, EFER, RFLAGS
from trapline.trace.column import Kind
from trapline.trace.exceptions import Exceptions
from trapline.trace.schema import COLUMNS, MODES, mode_of

DOCS = Path(__file__).parents[2] / "docs" / "conditions.md"


@pytest.mark.parametrize(
    ("cr0", "efer", "rflags", "mode"),
    [
        (0, 0, 0, "real"),
        (CR0.PG, EFER.SVME, RFLAGS.VM, "real"),
        (CR0.PE, EFER.SVME | EFER.LME, 0, "protected"),
        (CR0.PE, 0, RFLAGS.VM, "v86"),
        (CR0.PE | CR0.PG, EFER.LME | EFER.LMA, 0, "long"),
    ],
)
def test_the_mode(cr0, efer, rflags, mode):
    assert mode_of(cr0, efer, rflags) == mode
    assert mode in MODES


def test_values_have_the_type_of_their_column(batches):
    types = {Kind.NUMBER: int, Kind.VECTOR: int, Kind.TEXT: str, Kind.TRUTH: bool}

    @given(batches)
    def check(batches):
        for record in Exceptions(b"".join(batches)):
            for column in COLUMNS.values():
                value = column.of(record)
                assert value is None or isinstance(value, types[column.kind])
                assert not column.values or value is None or value in column.values

    check()


def test_the_documentation_lists_the_columns():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(column.name, column.kind.value, column.description) for column in COLUMNS.values()]
