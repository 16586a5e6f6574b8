"""The pages of the documentation: their commands run, their Python is typed, what they name exists."""

import importlib
import io
import json
import re
import subprocess
import sys
import tomllib

import pytest

import trapline
from tests.pages import ROOT, blocks, check, commands
from trapline.trace.condition import Condition
from trapline.trace.rules import parse_rule

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_INSTALLS = re.compile("python3 -m venv |pip install |sudo apt install ")
_LINK = re.compile(r"\]\(([^)#:]+\.\w+)(?:#[^)]*)?\)")


def ids(page):
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [ROOT / "docs" / f"{name}.md" for name in ("agents", "api", "conditions", "diff", "gdb", "perfetto", "trace")],
    ids=ids,
)
def test_the_commands_of_a_page(page, tmp_path):
    check(page, tmp_path)


def test_the_conditions_and_rules_can_be_read():
    page = ROOT / "docs" / "conditions.md"
    shown = [line for block in blocks(page) if block.kind == "conditions" for line in block.text.splitlines()]
    assert [str(Condition(line)) for line in shown] == shown
    rules = re.findall(r"^\| `((?:\w+:)?[\w,!]+(?:@\S+)?)` \|", page.read_text().partition("## Rules")[2], re.M)
    assert len(rules) == 3
    assert all(parse_rule(rule).vectors for rule in rules)


def test_the_fields_of_stored_records():
    page = (ROOT / "docs" / "trace-format.md").read_text().partition("## Lines")[2].partition("## From")[0]
    records, metadata, evidence = (set(_fields(part)) for part in re.split("^## .*$", page, flags=re.M))
    file = io.StringIO()
    trapline.run("sample:gate-not-present", exceptions="all", timeout=60, output=file)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert {name for line in lines if "type" not in line for name in line} == records - {"symbol", "source"}
    assert {name for line in lines if line.get("type") == "run" for name in line} == metadata | {"type"}
    optional = {"unreturned", "at_end", "vcpu", "images"}
    assert {name for line in lines if line.get("type") == "evidence" for name in line} == evidence - optional


def _fields(text):
    for first in re.findall(r"^\| (`[^|]+) \|", text, re.M):
        yield from re.findall(r"`(\w+)`", first)


@pytest.mark.slow
def test_python_on_the_pages_is_typed(tmp_path):
    for page in PAGES:
        for block in blocks(page):
            if block.kind == "python":
                name = f"{page.stem}_line_{block.line}.py"
                (tmp_path / name).write_text(block.text)
    assert list(tmp_path.iterdir())
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    command = [sys.executable, "-m", "mypy", *options, tmp_path]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files(page):
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_what_is_not_run_installs_something_that_there_is(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for block in blocks(page):
        if block.kind == "console no-run":
            assert all(_INSTALLS.match(command.text) for command in commands(block.text))
    extras = re.findall(r"trapline\[(\w+)\]", page.read_text(encoding="utf-8"))
    assert set(extras) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_and_modules_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    files = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any(f"/{path}".endswith(f"/{name}") for path in files), name
    for name in re.findall(r"`(trapline(?:\.\w+)+)`", text):
        assert _resolves(name), name


def _resolves(name):
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ImportError:
        return _resolves_attribute(module, attribute)
    return True


def _resolves_attribute(module, attribute):
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ImportError:
        owner, _, name = module.rpartition(".")
        return hasattr(getattr(importlib.import_module(owner), name), attribute)
