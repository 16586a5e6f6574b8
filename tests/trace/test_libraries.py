"""The libraries of the extra `trace`."""

import subprocess
import sys

from tests.acceptance.runs import LIMIT

FRAMES = """
import sys
import pyarrow
from trapline.trace.libraries import without_pandas
with without_pandas():
    pyarrow.array([1])
    print("pandas" in sys.modules)
print(list(pyarrow.table({"a": [7]}).to_pandas()["a"]))
with without_pandas():
    print("pandas" in sys.modules)
"""


def test_pandas_is_loaded_only_for_data_frames():
    done = subprocess.run([sys.executable, "-c", FRAMES], capture_output=True, text=True, timeout=LIMIT, check=True)
    assert done.stdout.splitlines() == ["False", "[7]", "True"]
