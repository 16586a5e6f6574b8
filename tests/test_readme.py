"""What README shows runs and prints what it shows, and what it lists is what there is."""

import re
import shlex

import pytest

from tests.pages import ROOT, blocks, check
from trapline.cli.parser import parser

PAGE = ROOT / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path):
    check(PAGE, tmp_path)


@pytest.mark.parametrize("line", [line for b in blocks(PAGE) if b.kind == "sh" for line in b.text.splitlines()])
def test_the_command_line_takes_what_is_shown(line):
    program, *arguments = shlex.split(line)
    assert program == "trapline"
    parser().parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)


def test_every_option_of_run_is_listed():
    run = parser().parse_args(["run"])
    listed = {name.replace("-", "_") for name in re.findall(r"`--([a-z-]+)", TEXT[TEXT.index("| option |") :])}
    ours = vars(run).keys() - {"verb", "verbose", "guest"}
    assert ours <= listed


def test_every_exit_code_is_listed():
    table = TEXT[TEXT.index("| exit code |") : TEXT.index("`trapline vectors`")]
    listed = re.findall(r"^\| (\d+) \| ", table, re.M)
    assert listed == re.findall(r"^  (\d+) +", parser().epilog, re.M)


def test_every_room_is_on_its_floor():
    floors = next(block.text for block in blocks(PAGE) if block.kind == "text")
    names = set(re.findall(r"[a-z]+", "\n".join(re.split(" {3,}", line.strip())[0] for line in floors.splitlines())))
    package = ROOT / "src" / "trapline"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert names == rooms | {path.stem for path in package.glob("*.py") if not path.stem.startswith("_")}
