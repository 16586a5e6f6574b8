"""The page on editors and the extension's manifest: what they show and name is so."""

import json
import re
import shutil
import subprocess
import tomllib

import msgspec
import pytest

from tests.debugger.dap.session import Session
from tests.pages import ROOT, blocks, same
from tests.programs.kernel import build_kernel
from trapline.debugger.dap.arguments import Launch

PAGE = ROOT / "docs" / "vscode.md"
EDITOR = ROOT / "editors" / "vscode"
ARGUMENTS = {field.encode_name for field in msgspec.structs.fields(Launch)} - {"noDebug"}
OF_EDITORS = {"type", "request", "name"}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A session with the kernel that crashes, stopped at its triple fault."""
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    kernel = build_kernel.build(tmp_path_factory.mktemp("crashing"), CRASH=1)
    with Session() as session:
        session.launch(kernel.image, symbols=[str(kernel.symbols)], filters=["shutdown"])
        session.run()
        yield session


def shown(title):
    """Return what the page shows."""
    return next(block.text for block in blocks(PAGE) if block.title == title)


def placeless(text):
    """Return a text without addresses in the kernel: where things are is for its compiler to say."""
    return re.sub(r"\b(?:0x)?[0-9a-f]{6,}\b|(?<=\()\d{12,}", "N", text)


def test_the_exception_pane(session):
    info = session.get("exceptionInfo", threadId=1)
    pane = f"{info['exceptionId']}\n{info['description']}\n\n{info['details']['stackTrace']}\n"
    assert same(placeless(shown("exception")), placeless(pane))


def test_the_variables(session):
    lines = []
    for name in ("TSS", "Page walk of RIP"):
        lines += [name, *(f"  {item['name']}: {item['value']}" for item in session.scope(name).values())]
    assert same(placeless(shown("variables")), placeless("\n".join(lines)))


def test_the_console(session):
    typed = re.findall(r"^> (.*)$", shown("console"), re.MULTILINE)
    answers = [session.get("evaluate", expression=line, context="repl")["result"] for line in typed]
    said = "\n".join(f"> {line}\n{answer}" for line, answer in zip(typed, answers, strict=True))
    assert same(placeless(shown("console")), placeless(said))
    assert same(shown("help"), session.get("evaluate", expression="help", context="repl")["result"])


def test_the_arguments_of_a_launch_are_those_of_the_manifest_and_of_the_page():
    manifest = json.loads((EDITOR / "package.json").read_text())
    (debugger,) = manifest["contributes"]["debuggers"]
    assert debugger["configurationAttributes"]["launch"]["properties"].keys() == ARGUMENTS
    for name, each in debugger["configurationAttributes"]["launch"]["properties"].items():
        default = each.get("default", msgspec.UNSET)
        field = next(field for field in msgspec.structs.fields(Launch) if field.encode_name == name)
        assert default in (msgspec.UNSET, field.default) or field.default is None, name
    for configuration in (*debugger["initialConfigurations"], *json.loads(shown("launch.json"))["configurations"]):
        assert configuration.keys() - OF_EDITORS <= ARGUMENTS
        msgspec.convert(configuration, Launch)
    text = PAGE.read_text()
    assert set(re.findall(r"`(\w+)`", text.partition("## At an exception")[0])) >= ARGUMENTS
    (helix,) = (tomllib.loads(block.text) for block in blocks(PAGE) if block.kind == "toml")
    assert helix["language"][0]["debugger"]["templates"][0]["args"].keys() <= ARGUMENTS


STUB = """
const made = {};
require("module")._load = ((load) => (name, ...rest) => name === "vscode" ? {
  debug: {
    registerDebugConfigurationProvider: (type, provider) => { made.provider = provider; },
    registerDebugAdapterDescriptorFactory: (type, factory) => { made.factory = factory; },
  },
  workspace: { getConfiguration: () => ({ get: () => process.argv[2] }) },
  DebugAdapterExecutable: class { constructor(command, args) { Object.assign(this, { command, args }); } },
} : load(name, ...rest))(require("module")._load);
require(process.argv[1]).activate({ subscriptions: [] });
console.log(JSON.stringify([
  made.provider.resolveDebugConfiguration({ uri: { fsPath: "/work" } }, {}),
  made.factory.createDebugAdapterDescriptor(),
]));
"""


def test_the_extension_starts_the_adapter():
    if (node := shutil.which("node")) is None:
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    command = [node, "-e", STUB, EDITOR / "extension.js", "/opt/trapline"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [{"cwd": "/work"}, {"command": "/opt/trapline", "args": ["dap"]}]
