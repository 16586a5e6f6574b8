"""What docs/trace.md shows for many machines, on four processes of this one."""

import subprocess
import sys

import pytest

import trapline
from tests.pages import ROOT, blocks


@pytest.mark.soak
def test_a_cluster_counts(tmp_path):
    pytest.importorskip("distributed")
    (script,) = (block.text for block in blocks(ROOT / "docs" / "trace.md") if block.title == "many.py")
    (tmp_path / "many.py").write_text(script)
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        trapline.run("sample:ring3", exceptions="all", timeout=60, output=tmp_path / "runs" / name / "run.parquet")
    done = subprocess.run([sys.executable, "many.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "Counter({(14,): 2, (13,): 2})\n"
