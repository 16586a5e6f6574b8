import json
import subprocess
from pathlib import Path

import pytest

from trapline.explain import explain


@pytest.fixture
def stored(trapline_command, tmp_path):
    """Return a function that stores the run of a sample."""

    def stored(sample):
        path = tmp_path / "run.jsonl"
        done = trapline_command("run", f"sample:{sample}", "-o", path)
        return path, done

    return stored


def test_a_run_tells_why_it_shut_down(stored):
    _, done = stored("gate-not-present")
    told = done.err[done.err.index("why it shut down") : done.err.index("guest: shutdown")]
    assert "  #UD at 0008:000000000010131c, CPL 0, 64-bit mode: ud2\n     ud2 always raises #UD\n" in told
    assert "  -> delivering #UD: IDT entry 6 is not present -> #NP(0x33)" in told
    assert "  -> shutdown\n" in told
    assert "Cause: IDT entry 6 (#UD) is not present: its P bit is clear.\n" in told
    assert "With the P bit of the gate set, #UD would have been delivered.\n" in told
    assert max(map(len, told.splitlines())) <= 80
    assert told.isascii()


def test_a_stored_run_tells_the_same(trapline_command, stored):
    path, done = stored("stack-overflow")
    told = done.err[done.err.index("why it shut down\n") + 17 : done.err.index("guest: shutdown")]
    again = trapline_command("explain", path)
    assert again.status == 0
    assert again.out == f"up to record 3\n{told}"


def test_a_stored_run_as_json(trapline_command, stored):
    path, _ = stored("no-idt")
    summary = json.loads(trapline_command("run", "sample:no-idt", "--json").out)
    (explanation,) = json.loads(trapline_command("explain", path, "--json").out)
    sequence = explanation.pop("seq")
    assert explanation == summary["explanation"]
    assert sequence == summary["recorded"] - 1
    assert explanation["causes"] == [
        "#UD at 0x101314: ud2 always raises #UD.",
        "no handler could be called, since no IDT is loaded: IDTR has base 0 and limit 0.",
    ]
    assert explanation["ending"] == "shutdown"


def test_a_double_fault_that_is_handled(trapline_command, stored):
    path, _ = stored("df")
    told = trapline_command("explain", path).out
    assert "Cause: IDT entry 0 (#DE) is not present" in told
    assert "  -> the guest gets #DF\n" in told


def test_an_image_of_uefi_has_its_name_and_its_symbols(trapline_command, stored, tmp_path):
    """The file of a stored run says what firmware had loaded, and where."""
    path, _ = stored("no-idt")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    image = {"name": "Driver.efi", "base": "0x101000", "size": "0x1000", "module": "driver.dll"}
    for record in records:
        if record.get("type") == "evidence":
            record["images"] = [image]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "#UD at Driver.efi+0x314: ud2" in trapline_command("explain", path).out
    source = tmp_path / "driver.s"
    source.write_text(".globl f\n.type f, @function\nf: .skip 0x400\n.size f, 0x400\n")
    link = ("-nostdlib", "-static", "-Wl,-Ttext=0", "-Wl,--build-id=none", "-Wl,-e,f", "-Wl,-n")
    subprocess.run(["gcc", *link, source, "-o", tmp_path / "driver.so"], check=True)
    named = trapline_command("explain", path, "--symbols", tmp_path / "driver.so").out
    assert "#UD at f+0x314" in named


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_in_an_explanation_costs_that_one_alone(trapline_command, stored, monkeypatch, as_json):
    path, _ = stored("df")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, *(line for line in lines if '"evidence"' in line)]))
    rule, calls = explain.reason, []

    def fails_once(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            raise IndexError("list index out of range")
        return rule(*arguments, **options)

    monkeypatch.setattr(explain, "reason", fails_once)
    status, out, err = trapline_command("explain", path, *(["--json"] if as_json else []))
    first, second = json.loads(out) if as_json else out.split("\n\n")[:2]
    failed = "This could not be explained: an error in trapline: IndexError: list index out of range (test"
    assert failed in (first["unproven"] if as_json else " ".join(first.split()))
    assert "entry 0 (#DE) is not present" in ("".join(second["causes"]) if as_json else second)
    assert (status, err) == (1, "")


def test_a_run_without_double_faults(trapline_command, stored):
    path, _ = stored("gp")
    done = trapline_command("explain", path)
    assert (done.status, done.out) == (0, "the file has no double or triple fault\n")


@pytest.mark.parametrize("content", [b"what\n", b"[1]\n", b"\xff\xfe\n", b'{"type": "evidence"}\n'])
def test_what_is_no_stored_run(trapline_command, tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    done = trapline_command("explain", path)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1


def test_a_file_that_is_not_there(trapline_command, tmp_path):
    done = trapline_command("explain", tmp_path / "none")
    assert done.status == 2
    assert "No such file" in done.err


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"\x00" * 100, b"\x7fELF\x02\x01\x01", b"\x89PNG\r\n", b"{", b'{"name": "a package"}'),
        b'{"type": "another"}\n',
        b"check_exception old: 0xffffffff new 0x6\n",
        b"<html>\n",
    ],
)
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_file_that_is_not_a_trace(trapline_command, tmp_path, content, words):
    path = tmp_path / "file"
    path.write_bytes(content)
    done = trapline_command("explain", path, *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"trapline: {path}: ")
    assert "run -o" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_output_is_to_blame_where_it_cannot_be_written(in_a_process, stored, words):
    path, _ = stored("no-idt")
    with Path("/dev/full").open("w") as full:
        done = in_a_process("explain", path, *words, stdout=full)
    assert (done.status, done.err) == (1, "trapline: stdout: No space left on device\n")
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    with reader.stdin as pipe:
        done = in_a_process("explain", path, *words, stdout=pipe)
    assert (done.status, done.err) == (1, "")
