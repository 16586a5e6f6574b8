"""The code that a page of the documentation shows, and how it is run.

A fenced block of the kind `console` is a session: after `$ ` a command for a shell, then what it prints on stdout and
stderr. `...` in a line of output is any text; a line of `...` alone is any number of lines. Runs of blanks are one
blank, so that columns may move. A block with `title="NAME"` is a file that the commands after it find in their
directory. What is marked `no-run` is not run: it installs programs.
"""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(?P<kind>\w*(?: no-run)?)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S)
_ELLIPSIS = re.escape("...")


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    title: str | None
    text: str
    line: int
    """The number of its first line."""


class Command(NamedTuple):
    """A command of a session, and what it is to print."""

    text: str
    expected: str


def blocks(page):
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    assert len(re.findall(r"^```", text, re.M)) == 2 * len(found), "an odd fence"
    return [Block(each["kind"], each["title"], each["text"], text.count("\n", 0, each.start()) + 2) for each in found]


def commands(session):
    """Return the commands of a session; a line that ends in a backslash goes on in the next."""
    parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", session, flags=re.M)
    assert not parts[0], f"output before the first command: {parts[0]!r}"
    return [Command(*pair) for pair in zip(parts[1::2], parts[2::2], strict=True)]


def run(command, directory, status=0):
    """Run a command; `status` is what `$?` holds. Return its exit status and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    if not entry_points(group="pytest11", name="trapline"):  # installed before there was a plugin
        environment["PYTEST_PLUGINS"] = "trapline.testing.plugin"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"(exit {status})\n{command}"],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    return done.returncode, done.stdout


def check(page, directory):
    """Follow a page in an empty directory: write its files, run its commands, compare what they print."""
    status = 0
    for block in blocks(page):
        if block.title is not None:
            (directory / block.title).write_text(block.text)
        elif block.kind == "console":
            for command in commands(block.text):
                status, printed = run(command.text, directory, status)
                assert same(command.expected, printed), (
                    f"{page.name}:{block.line}: $ {command.text}\n{printed}\n--- but the page shows\n{command.expected}"
                )


def same(expected, printed):
    """Say whether what was printed is what a page shows."""
    pattern = "".join(map(_line_pattern, _normal(expected)))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _normal(printed))) is not None


def _normal(text):
    return [re.sub(r"(?<=\S) +", " ", re.sub("─+", "─", line.rstrip())) for line in text.strip("\n").splitlines()]


def _line_pattern(line):
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    return re.escape(line).replace(_ELLIPSIS, ".*") + r"\n"
