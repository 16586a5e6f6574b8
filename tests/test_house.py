"""The rules of the house, checked: layers, light imports, small modules, names that say something."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "trapline"
HEAVY = ("numpy", "pyarrow", "rich", "unicorn", "iced_x86", "elftools", "cpp_demangle", "rust_demangler")


def test_arrows_point_down(capsys):
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_import_trapline_is_light():
    code = f"import sys, trapline; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_modules_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_names_say_what_is_inside():
    vague = {"utils", "common", "helpers", "misc", "base"}
    assert not [path for path in SOURCES.rglob("*") if path.stem in vague]
