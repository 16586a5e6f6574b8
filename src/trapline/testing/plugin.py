"""The pytest plugin: the fixture `trapline` runs guests, and a test that fails shows what its guests did.

    def test_my_kernel_boots(trapline):
        run = trapline.run("build/kernel.elf", exceptions="all,!pf", timeout=20)
        run.check()
        run.never("ud", "gp", "df")

The fixture's type is `trapline.testing.guests.Guests`. pytest finds the plugin by its entry point; `-p no:trapline`
switches it off.
"""

import itertools
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn
from zlib import crc32

import pytest

if TYPE_CHECKING:
    from .guests import Guests, Kept

PROCESSORS: Final = ("auto", "unicorn", "qemu")
"""A copy of `session.settings.PROCESSORS`, which takes long to load. A test compares them."""
_SECTION: Final = "trapline"
_LONGEST: Final = 120
"""Characters of a file's name, without its number."""
_OTHERS: Final = re.compile(r"[^\w.=+-]+")
"""Characters that are replaced in a file's name."""

_guests: Final = pytest.StashKey["Guests"]()
_runs: Final = pytest.StashKey[list["Kept"]]()
_names: Final = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("trapline", "guests under trapline")
    group.addoption(
        "--trapline-processor",
        choices=PROCESSORS,
        help="the processor for the guests of the fixture trapline, instead of those that the tests name",
    )
    group.addoption(
        "--trapline-keep",
        metavar="DIR",
        type=Path,
        help="write the exceptions of each run of the fixture trapline to a JSONL file there, named after the test",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the set of names of traces."""
    config.stash[_names] = set()


@pytest.fixture
def trapline(request: pytest.FixtureRequest) -> "Iterator[Guests]":
    """Run guests with `trapline.run(...)` and `trapline.machine(...)`: the library's, with the options of pytest."""
    from .guests import Guests

    node = request.node
    folder: Path | None = request.config.getoption("--trapline-keep")
    runs = node.stash[_runs] = []

    def keep(kept: "Kept") -> None:
        runs.append(kept)
        node.user_properties += [
            ("trapline_ending", kept.run.ending.name.lower()),
            ("trapline_recorded", kept.run.recorded),
        ]
        if kept.trace is not None:
            node.user_properties.append(("trapline_trace", str(kept.trace)))

    guests = node.stash[_guests] = Guests(
        processor=request.config.getoption("--trapline-processor"),
        trace=None if folder is None else _traces(folder, node.nodeid, request.config.stash[_names]),
        keep=keep,
        missing=_skip,
    )
    yield guests
    guests.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a section with the runs of its guests to the report of a test that fails."""
    report = yield
    if call.when == "call" and report.failed and _guests in item.stash:
        item.stash[_guests].keep_results()
        report.user_properties = list(item.user_properties)
        shown = "" if call.excinfo is None else str(call.excinfo.value)
        if texts := [kept.text(shown) for kept in item.stash[_runs]]:
            report.sections.append((_SECTION, "\n\n".join(texts)))
            _shorten_summary(report)
    return report


def _shorten_summary(report: pytest.TestReport) -> None:
    """Leave the first line of an error in pytest's summary, which shows all of them where the variable CI is set."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = crash.message.partition("\n")[0]


def _skip(reason: str) -> NoReturn:
    __tracebackhide__ = True
    pytest.skip(reason)


def _traces(folder: Path, nodeid: str, used: set[str]) -> Callable[[], Path]:
    """Return a function that returns a new file for each run of a test, and creates the folder."""
    parameters = nodeid.partition("[")[2].removesuffix("]")
    stem = _OTHERS.sub("-", nodeid.replace("::", ".")).strip("-.")
    if len(stem) > _LONGEST or _OTHERS.search(parameters):  # another test may have the same
        stem = f"{stem[:_LONGEST]}-{crc32(nodeid.encode()):08x}"

    def next_trace() -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in used)
        used.add(name)
        return (folder / f"{name}.jsonl").absolute()

    return next_trace
