"""No command destroys a file: outputs are not inputs, hold what they held until the guest runs, and need --force."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.lines import names
from trapline.arch.vectors import Vector
from trapline.machine.processor import Outcome
from trapline.machine.scripted import vmexit

UD = vmexit(0x40 + Vector.UD)
KEPT = "what was there before\n"


@pytest.fixture
def kept(tmp_path):
    """A file that holds something."""
    path = tmp_path / "kept"
    path.write_text(KEPT)
    return path


def hard_link(path):
    path.with_name("hard").hardlink_to(path)
    return path.with_name("hard")


def symbolic_link(path):
    path.with_name("soft").symlink_to(path)
    return path.with_name("soft")


def open_file(path):
    return f"/dev/fd/{os.open(path, os.O_RDWR)}"  # the test's process ends soon enough


def own_descriptor(path):
    return f"/proc/self/fd/{os.open(path, os.O_RDWR)}"


def roundabout(path):
    return path.parent / ".." / path.parent.name / path.name


NAMES = (str, hard_link, symbolic_link, open_file, own_descriptor, roundabout)


@pytest.mark.parametrize("option", ["-o", "--console"])
@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_is_the_guest(trapline_command, disk, play, option, name):
    play(UD)
    before = disk.read_bytes()
    done = trapline_command("run", disk, option, name(disk), "--force")
    assert (done.status, done.out) == (2, "")
    assert f"is the same file as the guest {disk}: it would be overwritten" in done.err
    assert done.err.count("\n") == 1
    assert disk.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        *(["-hda", "{}"], ["-cdrom", "{}"], ["-fda", "{}"], ["-kernel", "{}"], ["-initrd", "{} quiet,/other"]),
        *(["-drive", "file={},format=raw,if=ide"], ["-drive", "format=raw,file.filename={}"], ["-bios", "{}"]),
        *(["-blockdev", '{{"driver": "raw", "file": {{"driver": "file", "filename": "{}"}}}}'], ["-serial", "file:{}"]),
        *(["-drive", 'json:{{"file": {{"filename": "{}"}}}}'], ["-chardev", "file,id=x,path={}"], ["-D", "{}"]),
        *(["-hda", "file://{}"], ["-device", "loader,file={},addr=0"], ["-fw_cfg", "name=opt/x,file={}"]),
    ],
    ids=" ".join,
)
def test_an_output_that_is_a_file_of_qemus_options(trapline_command, disk, play, kept, words):
    play(UD)
    done = trapline_command("run", disk, "-fo", hard_link(kept), "--", *(word.format(kept) for word in words))
    assert done.status == 2
    assert "is the same file as " in done.err
    assert kept.read_text() == KEPT


def test_a_comma_in_a_name_is_written_twice(trapline_command, disk, play, tmp_path):
    play(UD)
    path = tmp_path / "a,b=c.img"
    path.write_text(KEPT)
    name = str(path).replace(",", ",,")
    done = trapline_command("run", disk, "-f", "-o", path, "--", "-drive", f"if=ide,file={name},format=raw")
    assert (done.status, path.read_text()) == (2, KEPT)


@pytest.mark.parametrize("words", [["--initrd", "{}"], ["--symbols", "{}"], ["--symbols", "{}@0x1000"]], ids=" ".join)
def test_an_output_that_is_another_input(trapline_command, kernel, kept, words):
    given = [word.format(kept) for word in words]
    done = trapline_command("run", kernel, *given, "-f", "-o", symbolic_link(kept))
    assert done.status == 2
    assert f"is the same file as {words[0]} {kept}" in done.err
    assert kept.read_text() == KEPT


@pytest.mark.parametrize("there", [True, False])
def test_two_outputs_that_are_one_file(trapline_command, disk, play, tmp_path, there):
    play(UD)
    one, two = tmp_path / "one", tmp_path / "two"
    two.symlink_to(one)
    if there:
        one.write_text(KEPT)
    done = trapline_command("run", disk, "-f", "-o", one, "--console", two)
    assert done.status == 2
    assert done.err == f"trapline: --console {two} is the same file as -o {one}: it would be overwritten\n"
    assert one.exists() is there


def test_a_terminal_may_be_used_twice(trapline_command, disk, play):
    play(UD)
    assert trapline_command("run", disk, "-o", "/dev/null", "--console", "/dev/null").status == 0


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("command", [["run"], ["run", "sample:ud", "-f", "-o"], ["explain"], ["import", "qemu-int"]])
def test_a_stream_that_was_redirected_to_a_file_of_the_command(in_a_process, kept, command, stream):
    with kept.open("a") as file:
        done = in_a_process(*command, kept, **{stream: file})
    assert done.status == 2
    if stream == "stdout":
        assert kept.read_text() == KEPT
        assert done.err.startswith("trapline: stdout is the same file as ")
    else:
        assert kept.read_text().startswith(f"{KEPT}trapline: stderr is the same file as ")


# ---- what exists


@pytest.mark.parametrize("option", ["-o", "--console"])
def test_a_file_that_holds_something_is_overwritten_with_force_only(trapline_command, disk, play, kept, option):
    play(UD)
    done = trapline_command("run", disk, option, kept)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"trapline: {option} {kept}: the file exists; --force overwrites it, or give another name\n"
    assert kept.read_text() == KEPT
    play(UD)
    assert trapline_command("run", disk, option, kept, "--force").status == 0
    assert KEPT not in kept.read_text()


def test_a_file_that_holds_nothing_needs_no_force(trapline_command, disk, play, tmp_path):
    play(UD)
    path = tmp_path / "empty"
    path.touch()
    assert trapline_command("run", disk, "-o", path).status == 0
    assert names(path.read_text()) == ["#UD"]


def test_a_link_stays_a_link_and_a_mode_stays(trapline_command, disk, play, kept):
    play(UD)
    kept.chmod(0o640)
    link = symbolic_link(kept)
    assert trapline_command("run", disk, "-f", "-o", link).status == 0
    assert link.is_symlink()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert names(kept.read_text()) == ["#UD"]


@pytest.mark.parametrize(
    "words",
    [
        *(["-smp", "9"], ["-m", "1G"], ["-bios", "/nowhere"], ["-cpu"]),
        *(["--qemu", "nope"], ["--memory", "1"], ["-e", "pg"], ["--stop", "pff"], ["--fail-on", "gp", "-e", "pf"]),
        *(["--timeout", "0"], ["--symbols", "nowhere"], ["--where", "colour"], ["--accel", "xen"]),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("option", ["-o", "--console"])
def test_a_run_that_does_not_start_changes_nothing(trapline_command, disk, kept, words, option, tmp_path):
    ours = words if words[0].startswith(("--", "-e")) else ["--", *words]
    for path in (kept, tmp_path / "new"):
        done = trapline_command("run", disk, "--force", option, path, *ours)
        assert done.status in (1, 2)
    assert kept.read_text() == KEPT
    assert not (tmp_path / "new").exists()


def test_a_guest_that_is_not_there(trapline_command, kept, tmp_path):
    assert trapline_command("run", tmp_path / "none", "-f", "-o", kept).status == 2
    assert kept.read_text() == KEPT


def test_a_qemu_that_does_not_start_the_machine(trapline_command, disk, kept, tmp_path):
    for path in (kept, tmp_path / "new"):
        done = trapline_command(
            "run", disk, "-f", "-o", path, "--console", tmp_path / "console", "--", "-vga", "none,x"
        )
        assert done.status == 2
    assert kept.read_text() == KEPT
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "console").exists()


def test_a_run_that_records_nothing_leaves_no_records(trapline_command, disk, play, kept):
    play()
    assert trapline_command("run", disk, "-f", "-o", kept).status == 0
    assert [json.loads(line)["guest"] for line in kept.read_text().splitlines()] == [str(disk)]


def test_a_run_that_is_lost_leaves_what_was_recorded(trapline_command, disk, play, kept):
    def lost(processor):
        assert names(kept.read_text()) == ["#UD"]  # under the given name, as a killed run leaves it
        raise KeyboardInterrupt

    play(UD, lost)
    assert trapline_command("run", disk, "-f", "-o", kept).status == 130
    assert names(kept.read_text()) == ["#UD"]


def test_a_new_file_between_the_check_and_the_start_is_not_overwritten(trapline_command, disk, play, kept, monkeypatch):
    opened = play(UD)
    path = kept.with_name("late")

    def late(**settings):
        path.write_text(KEPT)
        return opened(**settings)

    monkeypatch.setattr("trapline.session.opening.open_qemu", late)
    done = trapline_command("run", disk, "-o", path)
    assert (done.status, path.read_text()) == (2, KEPT)
    assert "the file exists" in done.err


def test_import_overwrites_with_force_only(trapline_command, tmp_path, kept):
    log = tmp_path / "log"
    log.write_text("check_exception old: 0xffffffff new 0x6\n")
    assert trapline_command("import", "qemu-int", log, "-o", kept).status == 2
    assert trapline_command("import", "qemu-int", tmp_path / "none", "-f", "-o", kept).status == 2
    assert trapline_command("import", "qemu-int", log, "-f", "-o", hard_link(log)).status == 2
    bad = tmp_path / "bad"
    bad.write_text("not a log\n")
    assert trapline_command("import", "qemu-int", bad, "-f", "-o", kept).status == 2
    assert kept.read_text() == KEPT
    assert log.read_text().startswith("check_exception")
    assert trapline_command("import", "qemu-int", log, "-f", "-o", kept).status == 0
    assert names(kept.read_text()) == ["#UD"]


# ---- stdout


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_records_on_stdout_have_it_alone(in_a_process, name):
    done = in_a_process("run", "sample:ud", "-o", name, "--live")
    assert names(done.out) == ["#UD"]
    assert "#UD" in done.err.splitlines()[0] or "UD2" in done.err
    assert done.status == 0


def test_records_on_stdout_that_is_a_file_follow_what_is_there(in_a_process, kept):
    with kept.open("a") as file:
        assert in_a_process("run", "sample:ud", "-o", "-", stdout=file).status == 0
    first, rest = kept.read_text().split("\n", 1)
    assert (first, names(rest)) == (KEPT.strip(), ["#UD"])


def test_import_to_stdout_by_name(trapline_command, tmp_path):
    log = tmp_path / "log"
    log.write_text("check_exception old: 0xffffffff new 0x6\n")
    done = trapline_command("import", "qemu-int", log, "-o", "-")
    assert names(done.out) == ["#UD"]


def test_the_console_on_stdout_by_name(trapline_command):
    done = trapline_command("run", "sample:ud", "--console", "-")
    assert (done.status, done.out) == (0, trapline_command("run", "sample:ud").out)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "-", "--json"], "--json and -o"),
        (["--console", "-", "--json"], "--json and --console"),
        (["-o", "/dev/stdout", "--console", "-"], "-o and --console"),
    ],
)
def test_two_that_want_stdout(trapline_command, words, named):
    done = trapline_command("run", "sample:ud", *words)
    assert done == (2, "", f"trapline: {named} both write to stdout: give one of them a file\n")


def test_an_open_file_that_cannot_be_written(in_a_process, kept):
    with kept.open() as file:
        done = in_a_process("run", "sample:ud", "-o", "/dev/stdin", stdin=file)
    assert done == (2, "", "trapline: -o /dev/stdin: it is open for reading only\n")


def test_a_fifo_needs_no_force(trapline_command, disk, play, tmp_path):
    play(UD)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    assert trapline_command("run", disk, "-o", path).status == 0
    reader.join()
    assert names(read[0]) == ["#UD"]


def test_the_library_keeps_the_same_rules(disk, play, kept):
    from trapline import run
    from trapline.errors import UsageError

    play(UD)
    with pytest.raises(UsageError, match="the file exists"):
        run(disk, output=kept)
    with pytest.raises(UsageError, match="the same file as the guest"):
        run(disk, output=disk, force=True)
    with disk.open("a") as file, pytest.raises(UsageError, match="the same file as the guest"):
        run(disk, output=file)
    with disk.open("ab") as file, pytest.raises(UsageError, match="--console is the same file as the guest"):
        run(disk, console=file)
    play(UD, Outcome.OFF)
    run(disk, output=Path(kept), console=kept.with_name("console"), force=True)
    assert names(kept.read_text()) == ["#UD"]
