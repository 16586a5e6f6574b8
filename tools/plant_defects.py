"""Plant known defects, one at a time, and check that the tests notice: a test of the tests.

Each defect is put into a copy of the checkout. The tests that the defect names run first, or else those of its room:
that takes seconds. All unit tests run if those notice nothing; and if they notice nothing either, or with --acceptance
for every defect, the guests of tests/acceptance/test_matrix.py. The table says which test noticed. The exit status is 1
when some defect was not noticed, 2 when the tests cannot tell: they fail without one, or a defect no longer fits the
code.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from tools.defect import Defect
from tools.defects import DEFECTS

ROOT: Final = Path(__file__).resolve().parents[1]

FIRST: Final = ("hypervisor", "processors")
"""Where most defects are noticed."""
LEFT_OUT: Final = ("acceptance", "tools", "test_plant_defects.py")
"""Whole guests come later; the test of the table would notice every defect, and for the wrong reason."""
GUESTS: Final = ("tests/acceptance/test_matrix.py",)
UNIT_LIMIT: Final = 900.0
MATRIX_LIMIT: Final = 1800.0


class CannotTell(Exception):
    """The tests cannot tell whether a defect is there; the message is the reason."""


class Verdict(NamedTuple):
    """The result of a run of tests: the first one that failed, None if all passed; and the seconds that it took."""

    noticed_by: str | None
    seconds: float


def copy_checkout(target: Path) -> None:
    """Copy the files that git tracks or would add, as they are on the disk."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():  # a deleted file is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    command = [sys.executable, "-c", "import trapline; print(trapline.__file__)"]
    found = subprocess.run(command, cwd=target, env=_environment(target), stdout=subprocess.PIPE, text=True, check=True)
    if not Path(found.stdout.strip()).is_relative_to(target):
        raise CannotTell(f"the tests would import {found.stdout.strip()}, not the copy in {target}")


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout / "src")}  # wins over an installed package


def planted(defect: Defect, checkout: Path) -> str:
    """Return the defect's file with the defect in it; CannotTell unless it fits exactly one place."""
    file = checkout / defect.file
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if (places := text.count(defect.old)) != 1:
        raise CannotTell(f"defect {defect.number} ({defect.name}) fits {places} places of {defect.file}, not one")
    return text.replace(defect.old, defect.new)


def run_tests(checkout: Path, tests: list[str], limit: float) -> Verdict:
    """Run tests of a checkout up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", *tests]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=checkout, env=_environment(checkout), stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return Verdict(f"no end after {limit:.0f} s", limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, a QEMU perhaps
            process.wait()
        output.seek(0)
        printed = output.read()
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+::.*?)(?: - .*)?$", printed, re.MULTILINE)
    if (status, failed is None) not in ((0, True), (1, False)) or not re.search(r"\d+ (passed|failed|error)", printed):
        raise CannotTell(f"the tests do not run:\n{printed.rstrip()}")
    return Verdict(failed[1] if failed else None, time.monotonic() - begin)


def unit_tests(checkout: Path) -> list[str]:
    """Return the tests of everything but whole guests, the likely ones first."""
    paths = (*(checkout / "tests").iterdir(), *(checkout / "tests" / "tools").iterdir())
    tests = [path for path in paths if path.is_dir() or path.match("test_*.py")]
    tests.sort(key=lambda path: (path.name not in FIRST, path))
    return [str(path.relative_to(checkout)) for path in tests if path.name not in LEFT_OUT]


def own_tests(defect: Defect) -> tuple[str, ...]:
    """Return the tests of the room that the defect's file is in: they have the same place under tests."""
    room = Path("tests", *Path(defect.file).parts[2:-1])
    return (str(room),) if (ROOT / room).is_dir() and room != Path("tests") else ()


def stages(defect: Defect, units: list[str]) -> list[tuple[tuple[str, ...], float]]:
    """Return the tests that may notice a defect, the cheapest first, each with the seconds that they may take."""
    likely = defect.tests or own_tests(defect)
    named = [(likely, UNIT_LIMIT)] if likely else []
    guests = [] if defect.no_guest_can_tell else [(GUESTS, MATRIX_LIMIT)]
    return [*named, (tuple(units), UNIT_LIMIT), *guests]


def try_defects(defects: list[Defect], folder: Path, *, acceptance: bool) -> list[str]:
    """Print a line for each defect; return the numbers of those that no test noticed."""
    pristine, copy, unnoticed = folder / "pristine", folder / "planted", []
    sound: set[tuple[str, ...]] = set()
    copy_checkout(pristine)
    texts = [planted(each, pristine) for each in defects]
    units = unit_tests(pristine)
    for each, text in zip(defects, texts, strict=True):
        shutil.copytree(pristine, copy)
        (copy / each.file).write_text(text, encoding="utf-8")
        verdicts: list[Verdict] = []
        for tests, limit in stages(each, units):
            noticed = any(one.noticed_by for one in verdicts)
            if noticed and not (acceptance and tests == GUESTS):
                continue
            if tests not in sound and (failed := run_tests(pristine, [*tests], limit).noticed_by):
                raise CannotTell(f"without any defect this fails: {failed}")
            sound.add(tests)
            verdicts.append(run_tests(copy, [*tests], limit))
        shutil.rmtree(copy)
        lines = [f"{one.noticed_by or '-'} ({one.seconds:.0f} s)" for one in verdicts]
        lines += [f"no guest can tell: {each.no_guest_can_tell}"] if each.no_guest_can_tell else []
        print(f"{each.number:>3}  {each.name:40}", f"\n{'':46}".join(lines), flush=True)
        if not any(one.noticed_by for one in verdicts):
            unnoticed.append(each.number)
    return unnoticed


def chosen(numbers: str) -> list[Defect]:
    """Return the defects of these numbers, without a number all: 7 means 7a, 7b and so on."""
    wanted = {number for number in numbers.split(",") if number}
    found = [each for each in DEFECTS if not wanted or wanted & {each.number, each.number.rstrip("abcdef")}]
    known = {number for each in found for number in (each.number, each.number.rstrip("abcdef"))}
    if wanted - known:
        raise CannotTell(f"no defect has the number {min(wanted - known)}; --list shows them")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Try the defects; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="list the defects and do nothing")
    parser.add_argument("--only", metavar="3,7b", default="", help="these defects only")
    parser.add_argument("--acceptance", action="store_true", help="run the whole guests for every defect")
    options = parser.parse_args(arguments)
    try:
        defects = chosen(options.only)
        if options.list:
            print(*(f"{each.number:>3}  {each.name:40} {each.file}" for each in defects), sep="\n")
            return 0
        with tempfile.TemporaryDirectory(prefix="trapline-defects-") as folder:
            unnoticed = try_defects(defects, Path(folder), acceptance=options.acceptance)
    except CannotTell as reason:
        print(f"plant_defects.py: {reason}", file=sys.stderr)
        return 2
    print(f"unnoticed: {', '.join(unnoticed)}" if unnoticed else f"all {len(defects)} were noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
