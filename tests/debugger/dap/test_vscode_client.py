"""Whole sessions, driven by VS Code's client for tests of debug adapters; each message is checked by the schema."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.debugger.dap.schema import check
from tests.programs.kernel import build_kernel
from tools.debug_client import debug_client
from tools.testguests import Unobtainable

SESSION = Path(__file__).parent / "session.js"
TRAPLINE = Path(sys.executable).parent / "trapline"
SECONDS = 300


def messages(**arguments):
    """Return all messages of a session."""
    if (node := shutil.which("node")) is None:
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    try:
        client = debug_client()
    except Unobtainable as reason:
        pytest.skip(str(reason))
    command = [node, SESSION, client, TRAPLINE, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for message in found:
        check(message)
    return found


def of(found, command):
    """Return the bodies of the responses to a request."""
    return [each.get("body") for each in found if each["type"] == "response" and each["command"] == command]


def events(found, name):
    """Return the bodies of events."""
    return [each.get("body") for each in found if each["type"] == "event" and each["event"] == name]


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["unicorn", pytest.param("qemu", marks=pytest.mark.qemu)])
def test_a_session_with_a_page_fault(processor):
    found = messages(guest="sample:pf", processor=processor, stopOnEntry=True)
    stops = events(found, "stopped")
    assert [each["reason"] for each in stops] == ["entry", "exception", "step", "step"]
    assert stops[1]["text"].startswith("#PF(0x0) at 0008:")
    assert "read of 0x80000123" in of(found, "exceptionInfo")[0]["description"]
    names = [each["name"] for each in of(found, "scopes")[0]["scopes"]]
    assert names[:2] == ["General", "Segments"]
    assert len(of(found, "variables")) == len(names)
    assert "page walk of 0x80000123" in of(found, "evaluate")[0]["result"]
    console = "".join(each["output"] for each in events(found, "output") if each["category"] == "stdout")
    assert "#PF(0x0) for 0x80000123 at rip" in console
    assert events(found, "exited") == [{"exitCode": 0}]


@pytest.mark.slow
def test_a_session_with_sources(kernel):
    source = build_kernel.HERE / "main.c"
    text = source.read_text().splitlines()
    line = next(number for number, line in enumerate(text, 1) if "selftest();" in line)
    arguments = {"guest": str(kernel.image), "symbols": [str(kernel.symbols)]}
    found = messages(source=str(source), line=line, **arguments)
    assert [each["reason"] for each in events(found, "stopped")] == ["breakpoint", "exception", "step", "step"]
    frame = of(found, "stackTrace")[1]["stackFrames"][0]
    assert Path(frame["source"]["path"]).parent == build_kernel.HERE
    assert events(found, "exited") == [{"exitCode": 0}]
