"""The rules of the house, checked: layers, light imports, small modules, names that say something, a reference."""

import ast
import logging.config
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import trapline
from tools.api_reference.page import PAGE, marked_names, page

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "trapline"
MODULES = {
    ".".join(("trapline", *path.relative_to(SOURCES).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in SOURCES.rglob("*.py")
}
HEAVY = (
    "msgspec",
    "numpy",
    "pyarrow",
    "rich",
    "unicorn",
    "iced_x86",
    "elftools",
    "cpp_demangle",
    "rust_demangler",
    "jinja2",
)


def test_arrows_point_down(capsys, monkeypatch):
    monkeypatch.setattr(logging.config, "dictConfig", lambda config: None)  # it would silence our loggers from here on
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_no_module_needs_itself():
    """Of the modules that a module imports, for its types too, none imports it in turn."""
    graph = TopologicalSorter({name: imports(name, path) for name, path in MODULES.items()})
    graph.prepare()  # raises CycleError, which names the circle


def imports(name, path):
    """Return the modules of ours that a module imports, wherever in it."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(filter(None, (package if node.level else "", node.module)))
            found |= {inner if (inner := f"{home}.{alias.name}") in MODULES else home for alias in node.names}
    return found & MODULES.keys() - {name}


def test_import_trapline_is_light():
    code = f"import sys, trapline; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in (SOURCES, ROOT / "tools", ROOT / "benchmarks") for path in folder.rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)).removeprefix("src/trapline/"),
)
def test_modules_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_names_say_what_is_inside():
    vague = {"utils", "common", "helpers", "misc", "base"}
    assert not [path for path in SOURCES.rglob("*") if path.stem in vague]


def test_tests_mirror_the_rooms():
    """Beside them are whole guests and their sources, and the tests of tools and benchmarks."""
    beside = {"acceptance", "benchmarks", "programs", "tools"}
    rooms = {path.parent.name for path in SOURCES.glob("*/__init__.py")} | beside
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert folders <= rooms


def test_the_reference_follows_the_source():
    assert PAGE.read_text(encoding="utf-8") == page(), "`make docs` writes docs/api.md"
    named = sorted(name for name in marked_names() if ":" not in name)
    assert named == sorted({*trapline.__all__} - {"__version__"}), "tools/api_reference/template.md names each once"
