"""The libraries of the extra `trace`."""

import os
import subprocess
import sys

from tests.acceptance.runs import LIMIT

ARRAY = """
import pyarrow
from trapline.trace.libraries import without_pandas
with without_pandas():
    pyarrow.array([1])
print("asked for")
import pandas
"""


def test_pandas_is_not_imported_by_commands(tmp_path):
    (tmp_path / "pandas.py").write_text("print('imported')")
    places = os.pathsep.join((str(tmp_path), *filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-c", ARRAY],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stdout.splitlines() == ["asked for", "imported"]
