"""What README shows as Python runs, and holds."""

import subprocess
import sys
import textwrap
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_library_example_runs():
    text = README.read_text()
    start = text.index("    import sys\n", text.index("As a library"))
    example = textwrap.dedent(text[start : text.index("\n\n`", start)])
    assert "assert" in example
    ran = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
