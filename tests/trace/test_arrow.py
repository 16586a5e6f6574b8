import subprocess
import sys

import pytest
from hypothesis import given, settings

from trapline.arch.events import Event, EventType, encode
from trapline.machine.record import RecordFlags
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions
from trapline.trace.schema import COLUMNS


def name(address):
    return Symbol("main", 0) if address % 2 else None


def test_a_table_has_what_one_exception_has(batches):
    pytest.importorskip("pyarrow")

    @settings(deadline=None)  # the first one loads a module
    @given(batches)
    def check(batches):
        exceptions = Exceptions(b"".join(batches), first=5, lookup=name)
        table = exceptions.to_arrow()
        assert table.column_names == list(COLUMNS)
        rows = [{name: column.of(record) for name, column in COLUMNS.items()} for record in exceptions]
        assert table.to_pylist() == rows

    check()


def test_types_do_not_depend_on_the_records(make_record):
    pa = pytest.importorskip("pyarrow")
    event = encode(Event(0x80, EventType.SOFT))
    full = Exceptions(
        make_record(vector=14, flags=RecordFlags.HAS_ADDRESS, exit_int_info=event), lookup=lambda _: Symbol("main", 0)
    ).to_arrow()
    assert Exceptions(b"").to_arrow().schema == Exceptions(make_record()).to_arrow().schema == full.schema
    assert full.schema.field("vectoring").type == full.schema.field("vector").type == pa.uint8()
    assert full.schema.field("address").type == pa.uint64()


def test_a_missing_library_is_named(make_record):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from trapline.errors import TraplineError; from trapline.trace.exceptions import Exceptions\n"
        "try: Exceptions(b'').to_arrow()\n"
        "except TraplineError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pyarrow is not installed; install it with: pip install 'trapline[trace]'\n"
