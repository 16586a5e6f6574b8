"""Traces are read page by page, and only those that the user allowed."""

import json
from functools import partial

import pytest

from trapline.api import run
from trapline.debugger.mcp.answers import DiffAnswer
from trapline.debugger.mcp.files import Files
from trapline.debugger.mcp.small import CAP, result_of, size_of
from trapline.machine.record import RECORD_SIZE
from trapline.trace.files.output import BatchOutput
from trapline.trace.files.writer import format_of
from trapline.trace.stored import Metadata

MILLION = 1_000_000


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    """A trace of a million exceptions."""
    path = tmp_path_factory.mktemp("million") / "million.arrow"
    data = bytes(run("sample:ring3").exceptions.data)
    times, rest = divmod(MILLION * RECORD_SIZE, len(data))
    with path.open("wb") as file:
        output = BatchOutput(str(path), partial(format_of(path).make, file, None))
        output.begin(Metadata())
        for number in range(0, times, 1000):
            batch = data * min(1000, times - number)
            output.write(batch, number * len(data) // RECORD_SIZE)
        output.write(data[:rest], times * len(data) // RECORD_SIZE)
        output.close()
    return path


def test_a_page_of_a_million_is_small_and_the_next_one_follows(talk, million, tmp_path):
    (tmp_path / "million.arrow").hardlink_to(million)

    async def conversation(session):
        answer = await session.call("exceptions", trace="million.arrow", registers=True, limit=100)
        assert answer["total"] == MILLION
        assert 10 < len(answer["exceptions"]) <= 100
        assert answer["next_cursor"] == f"{len(answer['exceptions'])}"
        cursor, seen = None, []
        while cursor is not None or not seen:
            answer = await session.call(
                "exceptions", trace="million.arrow", last=40, registers=True, limit=100, cursor=cursor
            )
            seen += [each["seq"] for each in answer["exceptions"]]
            cursor = answer.get("next_cursor")
        assert seen == list(range(MILLION - 40, MILLION))

    talk(conversation)


def test_groups_are_counted_page_by_page(talk):
    async def conversation(session):
        number = (await session.call("run", guest="sample:demand-paging"))["run"]
        cursor, sizes = None, []
        while cursor is not None or not sizes:
            answer = await session.call("exceptions", trace=number, by="address", limit=30, cursor=cursor)
            assert (answer["total"], answer["distinct"]) == (64, 64)
            sizes.append(len(answer["groups"]))
            cursor = answer.get("next_cursor")
        assert sizes == [30, 30, 4]

    talk(conversation)


def test_two_runs_are_compared(talk):
    async def conversation(session):
        runs = [(await session.call("run", guest=guest))["run"] for guest in ("sample:ud", "sample:ud", "sample:panic")]
        assert runs == ["r1", "r2", "r3"]
        assert (await session.call("diff", a="r1", b="r2"))["same"]
        different = await session.call("diff", a="r1", b="r3")
        assert (different["same"], different["new"] + different["gone"] + different["changed"]) == (False, 1)
        assert {each["name"] for each in different["counts"]} == {"#UD", "#PF"}

    talk(conversation)


def test_a_run_is_a_resource(talk):
    async def conversation(session):
        number = (await session.call("run", guest="sample:no-idt"))["run"]
        texts = {}
        for uri in (f"run/{number}", f"run/{number}/trace?first=3", "schema/run", "schema/trace"):
            (content,) = (await session.client.read_resource(f"trapline://{uri}")).contents
            texts[uri] = content.text
        assert json.loads(texts["run/r1"])["ending"] == "shutdown"
        assert len(texts["run/r1"]) <= CAP
        assert [json.loads(line)["seq"] for line in texts["run/r1/trace?first=3"].splitlines()] == [3, 4]
        assert json.loads(texts["schema/run"])["title"] == "The result of a run"
        assert texts["schema/trace"].startswith("# ")
        prompt = await session.client.get_prompt("hunt_a_triple_fault", {"guest": "kernel.elf"})
        assert "kernel.elf" in prompt.messages[0].content.text

    talk(conversation)


LOG = """\
check_exception old: 0xffffffff new 0xe
     0: v=0e e=0002 i=0 cpl=0 IP=0010:0000000000101234 pc=0000000000101234 SP=0018:0000000000105ff8 CR2=0000000000a00000
RAX=0000000000000000
"""


def test_a_log_of_qemu_is_a_trace(talk, tmp_path):
    (tmp_path / "qemu.log").write_text(LOG)
    (tmp_path / "notes.txt").write_text("nothing\n")

    async def conversation(session):
        answer = await session.call("import_log", path="qemu.log")
        assert (answer["run"], answer["recorded"], answer["counts"][0]["name"]) == ("r1", 1, "#PF")
        step = answer["next"][0]
        (found,) = (await session.call(step["tool"], **step["arguments"]))["exceptions"]
        assert (found["name"], found["rip"], found["address"]) == ("#PF", "0x101234", "0xa00000")
        assert "no double or triple fault" in (await session.call("explain", trace="r1"))["note"]
        assert "notes.txt" in await session.error("import_log", path="notes.txt")

    talk(conversation)


REFUSED = [
    ("run", {"guest": "{outside}"}, "only files below"),
    ("run", {"guest": "../{name}/outside"}, "only files below"),
    ("run", {"guest": "link"}, "only files below"),
    ("run", {"guest": "folder"}, "not a regular file"),
    ("run", {"guest": "nothing"}, "no such file"),
    ("run", {"guest": "a\0b"}, "not a file name"),
    ("run", {"guest": "\ud800"}, "not a file name"),
    ("run", {"guest": "x" * 5000}, "no such file"),
    ("explain", {"trace": "x" * 5000}, "no such file"),
    ("run", {"guest": "sample:nothing"}, "sample"),
    ("run", {"guest": "sample:ud", "options": {"symbols": ["link"]}}, "only files below"),
    ("run", {"guest": "sample:ud", "options": {"symbols": ["{outside}@0x1000"]}}, "only files below"),
    ("run", {"guest": "sample:ud", "options": {"initrd": "{outside}"}}, "only files below"),
    ("run", {"guest": "sample:ud", "options": {"qemu_options": ["-hda", "x"]}}, "--allow-qemu-options"),
    ("run", {"guest": "sample:ud", "exceptions": "colour"}, "colour"),
    ("run", {"guest": "sample:ud", "colour": 1}, "colour: Extra inputs are not permitted. run takes guest,"),
    ("run", {"guest": "sample:ud", "timeout": 1e9}, "timeout"),
    ("stop_at", {"guest": "link"}, "only files below"),
    ("stop_at", {"guest": "sample:ud", "at": "pf if colour"}, "colour"),
    ("stop_at", {}, "give either a guest"),
    ("registers", {}, "stop_at starts one"),
    ("explain", {"trace": "{outside}"}, "only files below"),
    ("explain", {"trace": "part"}, "only files below"),
    ("explain", {"trace": "r7"}, "there is no such run. Runs that are kept: none"),
    ("exceptions", {"trace": "folder"}, "not a regular file"),
    ("diff", {"a": "link", "b": "link"}, "only files below"),
    ("import_log", {"path": "link"}, "only files below"),
]


def test_what_is_refused(talk, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "outside"
    outside.write_bytes(b"secret")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "part.part").symlink_to(outside)
    (tmp_path / "folder").mkdir()

    async def conversation(session):
        for tool, arguments, sentence in REFUSED:
            text = json.dumps(arguments).replace("{outside}", str(outside)).replace("{name}", outside.parent.name)
            told = await session.error(tool, **json.loads(text))
            assert sentence in told
            assert "secret" not in told

    talk(conversation)


def test_tools_say_what_they_do_and_what_they_answer(talk):
    async def conversation(session):
        tools = {each.name: each for each in (await session.client.list_tools()).tools}
        assert all(each.output_schema and each.description and each.title for each in tools.values())
        assert not any(each.annotations.destructive_hint for each in tools.values())
        changing = {name for name, each in tools.items() if not each.annotations.read_only_hint}
        assert changing == {"run", "stop_at", "resume", "step", "import_log"}

    talk(conversation)


@pytest.mark.parametrize("text", [["x" * 10_000] * 1000, ['\0"é'] * 100_000, ["x" * 1_000_000]], ids=len)
def test_what_is_too_long_is_cut_and_told(text):
    answer = DiffAnswer(same=False, summary="s", common=0, new=1, gone=0, moved=0, changed=0, text=text, counts=[])
    result = result_of(answer)
    assert CAP // 16 < size_of(result) <= CAP
    assert result.structured_content["left_out"][0].startswith("text: ")
    assert json.loads(result.content[0].text) == result.structured_content


def test_another_directory_is_allowed(tmp_path, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "guest").write_bytes(b"x")
    assert Files([tmp_path, other]).find(str(other / "guest")) == str(other / "guest")
