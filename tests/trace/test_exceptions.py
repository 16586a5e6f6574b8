import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.errors import TraplineError
from trapline.machine.record import RECORD_SIZE
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions


def test_it_is_the_sequence_that_a_list_is(batches):
    @given(batches, st.slices(6), st.slices(6))
    def check(batches, once, twice):
        data = b"".join(batches)
        exceptions = Exceptions(data, first=100)
        plain = list(exceptions)
        assert [record.seq for record in plain] == list(range(100, 100 + len(data) // RECORD_SIZE))
        assert [exceptions[place] for place in range(-len(plain), len(plain))] == plain * 2
        assert list(exceptions[once]) == plain[once]
        assert list(exceptions[once][twice]) == plain[once][twice]
        assert exceptions[once].columns["rip"].tolist() == [record.rip for record in plain[once]]
        for place in (len(plain), -len(plain) - 1):
            with pytest.raises(IndexError):
                exceptions[place]

    check()


def test_a_slice_copies_nothing(make_record):
    memory = bytearray(make_record(vector=6) + make_record(vector=13) + make_record(vector=14))
    exceptions = Exceptions(memoryview(memory), first=5)[1:]
    columns = exceptions.columns
    memory[RECORD_SIZE + 8] = 0
    assert exceptions[0].vector == columns["vector"][0] == 0
    assert exceptions[0].seq == 6


def test_names_come_from_the_lookup(make_record):
    exceptions = Exceptions(make_record(vector=6, rip=0x10), lookup=lambda address: Symbol("main", address))
    assert exceptions[0].symbol == exceptions[:1][0].symbol == next(iter(exceptions)).symbol == Symbol("main", 0x10)


def test_a_record_that_is_cut_off_is_told(make_record):
    with pytest.raises(TraplineError, match="the last record has 28 bytes instead of 256"):
        Exceptions(make_record() + bytes(28))


def test_its_repr_is_short(make_record):
    assert repr(Exceptions(make_record() * 1200)) == "<Exceptions: 1,200>"


def test_elements_need_no_numpy():
    code = (
        "import sys; from trapline.trace.exceptions import Exceptions; from trapline.machine.record import Record; "
        "print(*Exceptions(bytes(Record()))[:1]); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_several_conditions_are_met_at_once(make_record):
    exceptions = Exceptions(b"".join(make_record(vector=vector, cpl=cpl) for vector in (6, 14) for cpl in range(4)))
    found = exceptions.where("vector == pf", "cpl >= 2")
    assert [(record.seq, record.vector, record.cpl) for record in found] == [(6, 14, 2), (7, 14, 3)]
    assert exceptions.mask("vector == pf", "cpl >= 2").tolist() == [False] * 6 + [True] * 2
    assert [record.seq for record in exceptions[::-3].where()] == [7, 4, 1]
    assert [record.seq for record in found.where("cpl == 3")] == [7]
