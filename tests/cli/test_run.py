import json

import pytest

from tests.lines import names, records
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.errors import LaunchError, ProcessorLost, UsageError
from trapline.hypervisor.parameters import ENVIRONMENT
from trapline.machine.processor import Outcome
from trapline.machine.scripted import vmexit
from trapline.processors.qemu import launch
from trapline.processors.qemu.facts import MANUAL
from trapline.session import opening
from trapline.session.settings import choose_mask, parse_memory

UD = vmexit(0x40 + Vector.UD)
PF = vmexit(0x40 + Vector.PF, info_1=2, info_2=0x1234)
SHUTDOWN = vmexit(0x7F)


@pytest.fixture(autouse=True)
def _no_kvm(monkeypatch):
    monkeypatch.setattr("trapline.processors.qemu.kvm.nested_svm_missing", lambda: "/dev/kvm is a stone")
    monkeypatch.setattr(launch, "nested_svm_missing", lambda: "/dev/kvm is a stone")


# ---- what is asked for


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("64M", 64 << 20), ("64", 64 << 20), ("65536k", 64 << 20), ("2G", 2 << 30), ("1GiB", 1 << 30)),
        *(("1gb", 1 << 30), (" 4m ", 4 << 20), ("0", 0)),
    ],
)
def test_memory_is_read_as_qemu_reads_it(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "0x40", "64X", "1T", "9" * 5000, "٣M", "64 MB of RAM"])
def test_what_is_no_memory_size(text):
    with pytest.raises(UsageError, match="not a size such as 64M or 2G"):
        parse_memory(text)


@pytest.mark.parametrize("size", ["0", "3M", "9G", "4097K", "999999999999999"])
def test_memory_that_no_guest_can_have(trapline_command, disk, size):
    done = trapline_command("run", disk, "--memory", size)
    assert (done.status, done.out) == (2, "")
    assert done.err == "trapline: --memory: a guest has 4M to 8G of memory, in whole MiB\n"


def test_every_exception_is_forced_unless_something_else_is_said(monkeypatch):
    assert choose_mask(None) == FORCEABLE
    assert choose_mask("pf,#GP") == 1 << Vector.PF | 1 << Vector.GP
    monkeypatch.setenv(ENVIRONMENT, "0x40")
    assert choose_mask(None) is None  # the parameter's own affair
    assert choose_mask("none") == 0


@pytest.mark.parametrize("words", [["-e", "0x40"], ["--exceptions", "UD"], ["-e", "6"], ["-e#ud"]])
def test_the_mask_reaches_the_vmcb(trapline_command, disk, play, words):
    opened = play(UD)
    assert trapline_command("run", disk, *words).status == 0
    assert opened.processor.entries[-1].vmcb.control.intercept_exceptions == 0x40


def test_the_mask_of_the_environment(trapline_command, disk, play, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "0x40")
    opened = play()
    assert trapline_command("run", disk).status == 0
    assert opened.processor.entries[-1].vmcb.control.intercept_exceptions == 0x40


def test_a_bad_mask_in_the_environment(trapline_command, disk, play, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "pf")
    play()
    done = trapline_command("run", disk)
    assert done.status == 2
    assert done.err == f"trapline: {ENVIRONMENT}='pf' is not a number such as 0x6040\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("pg", "'pg' names no exception; did you mean"),
        ("nmi", "NMI (non-maskable interrupt) cannot be forced: SVM leaves the bit of vector 2 undefined"),
        ("40", "40 is not an exception vector: they are 0 to 31"),
        ("0x100000000", "0x100000000 is wider than the 32 exception vectors"),
        ("", "no exception is named; write all, none, or names such as pf,gp"),
    ],
)
def test_what_is_no_set_of_exceptions(trapline_command, disk, words, complaint):
    done = trapline_command("run", disk, "-e", words)
    assert (done.status, done.out) == (2, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_a_near_miss_names_what_was_meant(trapline_command, disk):
    assert "gp" in trapline_command("run", disk, "-e", "gpp").err.partition("did you mean")[2]


def test_a_mask_with_vectors_that_are_refused_warns_of_each(in_a_process):
    done = in_a_process("run", "sample:ud", "-e", "0x8044")
    assert done.status == 0
    warnings = [line for line in done.err.splitlines() if line.startswith("trapline:")]
    assert [line.split("is not intercepted")[0] for line in warnings] == [
        "trapline: NMI (vector 2) ",
        "trapline: vector 0x0f (vector 15) ",
    ]
    assert "1 exception recorded" in done.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_what_is_no_time(trapline_command, disk, seconds):
    done = trapline_command("run", disk, f"--timeout={seconds}")
    assert done.status == 2
    assert "a timeout is more than 0 seconds" in done.err


# ---- what is run


def test_nothing_to_run(trapline_command):
    done = trapline_command("run")
    assert (done.status, done.out) == (2, "")
    assert "nothing to run: name a GUEST, or give QEMU options after --" in done.err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"just words", "not a known kind of guest"),
        (b"\x1f\x8b" + bytes(600), "gzip-compressed data: unpack it first"),
        (b"070701" + bytes(600), "cpio archive"),
    ],
)
def test_what_is_no_guest(trapline_command, tmp_path, content, complaint):
    path = tmp_path / "guest"
    if content is not None:
        path.write_bytes(content)
    done = trapline_command("run", path)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"trapline: {path}: ")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_a_directory_is_no_guest(trapline_command, tmp_path):
    assert trapline_command("run", tmp_path).status == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--initrd", "x"], "--initrd is for kernels"),
        (["--append", "x"], "--append is for kernels"),
        (["--append", ""], "--append is for kernels"),
    ],
)
def test_a_disk_has_a_boot_loader_of_its_own(trapline_command, disk, words, complaint):
    done = trapline_command("run", disk, *words)
    assert done.status == 2
    assert complaint in done.err


@pytest.mark.parametrize(("name", "complaint"), [("nowhere", "no such file"), ("", "not a file"), (".", "not a file")])
def test_an_initrd_that_is_none(trapline_command, kernel, name, complaint):
    done = trapline_command("run", kernel, "--initrd", name)
    assert done.status == 2
    assert complaint in done.err


@pytest.mark.parametrize("words", [["--initrd", "x"], ["--append", "x"]])
def test_what_qemu_boots_by_itself_has_no_initrd_of_ours(trapline_command, words):
    done = trapline_command("run", *words, "--", "-nodefaults")
    assert done.status == 2
    assert "need a GUEST" in done.err


def test_the_guest_and_the_options_reach_qemu(trapline_command, disk, kernel, play):
    opened = play()
    options = ("--memory", "64M", "--isolate", "--qemu", "/some/qemu")
    trapline_command("run", disk, *options, "--", "-vga", "none")
    assert opened.settings["guest"][1].startswith(f"file={disk},")
    assert opened.settings["memory"] == 64 << 20
    assert opened.settings["isolated"] is True
    assert opened.settings["program"] == "/some/qemu"
    assert opened.settings["options"] == ["-vga", "none"]
    assert opened.settings["accelerator"] == "tcg"
    assert opened.settings["serial"] == ["-serial", "stdio"]
    opened = play()
    trapline_command("run", kernel, "--append", "a -- b", "--", "--", "-vga")
    assert opened.settings["guest"][-2:] == ["-append", "a -- b"]
    assert opened.settings["options"] == ["--", "-vga"]


@pytest.mark.parametrize(
    "words",
    [
        *(["-m", "1G"], ["-accel", "kvm"], ["-enable-kvm"], ["-smp", "9"], ["-daemonize"]),
        *(["-machine", "microvm"], ["-incoming", "x"], ["-qmp", "stdio"], ["-machine", "pflash0=x"], ["-cpu"]),
        *(["-M", "accel=kvm"], ["-bios", "/nowhere/bios"], ["-drive", "if=pflash,unit=1,file=x"]),
        ["-pflash", "/nowhere/flash"],
    ],
)
def test_options_that_qemu_cannot_be_given(trapline_command, disk, words):
    done = trapline_command("run", disk, "--", *words)
    assert (done.status, done.out) == (2, "")
    of_file = "the firmware /nowhere/flash: No such file"
    assert done.err.startswith(
        f"trapline: {of_file if words[0] == '-pflash' else words[0]}".replace(" -M", " -machine")
    )
    assert done.err.count("\n") == 1


# ---- what it is run on


def test_kvm_where_it_cannot_be_used_is_refused_in_words(trapline_command, disk):
    done = trapline_command("run", disk, "--accel", "kvm")
    assert (done.status, done.out) == (2, "")
    complaint = "--accel kvm cannot be used: /dev/kvm is a stone; --accel tcg needs no hardware"
    assert done.err == f"trapline: {complaint}\n"


def test_kvm_is_chosen_where_it_can_be_used(trapline_command, disk, play, monkeypatch):
    monkeypatch.setattr("trapline.processors.qemu.kvm.nested_svm_missing", lambda: None)
    monkeypatch.setattr(opening, "facts_of", lambda program, accelerator: MANUAL)
    opened = play()
    trapline_command("run", disk)
    assert opened.settings["accelerator"] == "kvm"


def test_kvm_is_not_chosen_where_it_does_not_work(trapline_command, disk, play, monkeypatch):
    def no_guest_leaves(program, accelerator):
        raise LaunchError("no guest leaves")

    warned = []
    monkeypatch.setattr("trapline.processors.qemu.kvm.nested_svm_missing", lambda: None)
    monkeypatch.setattr("trapline.session.opening.facts_of", no_guest_leaves)
    monkeypatch.setattr("trapline.session.opening.log.warning", lambda text, *values: warned.append(text % values))
    opened = play()
    trapline_command("run", disk)
    assert opened.settings["accelerator"] == "tcg"
    assert warned == ["KVM is not used, for it does not work here: no guest leaves"]


def test_without_qemu(trapline_command, disk, without_programs):
    done = trapline_command("run", disk)
    assert (done.status, done.out) == (1, "")
    assert "qemu-system-x86_64 is not on PATH; install it (Debian: apt install qemu-system-x86)" in done.err


def test_a_qemu_that_does_not_exist(trapline_command, disk):
    done = trapline_command("run", disk, "--qemu", "/nonexistent")
    assert done.status == 2
    assert done.err.startswith("trapline: /nonexistent: no such program; install it")


@pytest.mark.parametrize(
    ("script", "answer"), [("exit 1", "''"), ("echo I am a teapot; exit 1", repr("I am a teapot\n"))]
)
def test_what_is_no_qemu(trapline_command, disk, program, script, answer):
    path = program(script)
    done = trapline_command("run", disk, "--qemu", path)
    assert done.status == 2
    assert done.err == f"trapline: {path} does not look like QEMU: it answered {answer} to --version\n"


def test_a_file_that_is_no_program(trapline_command, disk, program):
    path = program("")
    path.write_bytes(b"\x7fELF is not all it takes")
    done = trapline_command("run", disk, "--qemu", path)
    assert done.status == 2
    assert f"{path} does not start: " in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["qemu", "qemu.qmp"])
def test_a_missing_library_is_named_before_anything_runs(in_a_process, disk, missing):
    code = f"sys.modules[{missing!r}] = None\nfrom trapline.cli.main import main\nsys.exit(main())"
    done = in_a_process("run", disk, code=code)
    assert (done.status, done.out) == (1, "")
    assert done.err == "trapline: qemu.qmp is not installed; install it with: pip install 'trapline[qemu]'\n"


# ---- how it ends


def overdue(processor):
    return Outcome.DEADLINE


def interrupted(processor):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("steps", "status", "code", "words"),
    [
        ([Outcome.OFF], None, 0, "guest: power off after"),
        ([Outcome.RESET], None, 0, "guest: reset after"),
        ([Outcome.OFF], 1, 0, "guest: debug exit with 0x0 after"),
        ([Outcome.OFF], 3, 4, "guest: debug exit with 0x1 after"),
        ([SHUTDOWN], None, 3, "guest: shutdown (triple fault) after"),
        ([overdue], None, 124, "guest: timeout after"),
        ([interrupted], None, 130, "guest: interrupted after"),
        ([ProcessorLost("QEMU is gone")], None, 1, "guest: failed after"),
        ([vmexit(0x8E)], None, 1, "guest: failed after"),
    ],
)
def test_exit_codes(trapline_command, disk, play, steps, status, code, words):
    play(*steps, exit_status=status)
    done = trapline_command("run", disk)
    assert (done.status, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("status", [1, 3, 35])
def test_the_guests_own_exit_code(trapline_command, disk, play, status):
    play(exit_status=status)
    assert trapline_command("run", disk, "--exit-code", "guest").status == status


def test_a_lost_processor_is_told_in_a_line(trapline_command, disk, play):
    play(UD, ProcessorLost("QEMU was killed by SIGKILL"))
    done = trapline_command("run", disk)
    assert [line for line in done.err.splitlines() if line.startswith("trapline")] == [
        "trapline: QEMU was killed by SIGKILL"
    ]
    assert "#UD (6)" in done.err
    assert "the last exceptions, newest last\n  #UD " in done.err


def test_an_exit_that_nobody_handles_shows_the_vmcb(trapline_command, disk, play):
    play(vmexit(0x8E))
    done = trapline_command("run", disk)
    assert "exit: " in done.err
    assert "0x8e" in done.err


# ---- what it leaves


def test_the_summary_as_json(trapline_command, disk, play):
    opened = play(UD, PF, UD)
    done = trapline_command("run", disk, "--json")
    assert (done.status, done.err) == (0, "")
    summary = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert {key: summary[key] for key in ("ending", "detail", "exit_code", "debug_exit", "recorded")} == {
        "ending": "off",
        "detail": "",
        "exit_code": 0,
        "debug_exit": None,
        "recorded": 3,
    }
    assert [(row["vector"], row["name"], row["count"]) for row in summary["counts"]] == [
        (6, "#UD", 2),
        (14, "#PF", 1),
    ]
    assert set(summary["counts"][0]) == {"vector", "name", "count", "first_rip", "last_rip"}
    assert summary["seconds"] > 0
    assert {"exits", "stopped_seconds"} < set(summary)
    assert (summary["version"], summary["last"], summary["crash"], summary["explanation"]) == (1, [], None, None)
    assert opened.settings["files"].stdout is not None  # the console must not stand among the data


def test_a_shutdown_as_json(trapline_command, disk, play):
    play(UD, SHUTDOWN)
    done = trapline_command("run", disk, "--json")
    summary = json.loads(done.out)
    assert done.status == summary["exit_code"] == 3
    assert [line["name"] for line in summary["last"]] == ["#UD"]
    assert int(summary["crash"]["registers"]["rip"], 16) == 0xFFF0


def test_a_shutdown_in_words(trapline_command, disk, play):
    play(UD, SHUTDOWN)
    words = trapline_command("run", disk).err
    assert "triple fault: the last exceptions, newest last" in words
    assert "  #UD   cpl 0  f000:000000000000fff0" in words
    assert "at the shutdown  cpl 0  f000:000000000000fff0" in words
    play(SHUTDOWN)
    assert "none was recorded: run it again with --exceptions all" in trapline_command("run", disk).err


def test_lines_are_written_to_the_output_file(trapline_command, disk, play, tmp_path):
    play(UD, PF)
    path = tmp_path / "records.jsonl"
    assert trapline_command("run", disk, "-o", path).status == 0
    lines = records(path.read_text())
    assert [(line["seq"], line["name"]) for line in lines] == [(0, "#UD"), (1, "#PF")]
    assert lines[1]["address"] == "0x1234"


def test_live_lines_stand_on_stderr(trapline_command, disk, play):
    play(UD, PF)
    done = trapline_command("run", disk, "--live")
    assert [line.split()[0] for line in done.err.splitlines()[:2]] == ["#UD", "#PF"]


def test_only_what_the_condition_holds_for_is_recorded(trapline_command, disk, play, tmp_path):
    play(UD, PF)
    path = tmp_path / "records.jsonl"
    done = trapline_command("run", disk, "--live", "-o", path, "--where", "address == 0x1234")
    assert done.status == 0
    assert done.err.splitlines()[0].split()[0] == "#PF"
    assert "1 exception recorded where address == 0x1234; " in done.err
    assert names(path.read_text()) == ["#PF"]


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("colour == 3", "condition 'colour == 3': there is no column colour; did you mean"),
        ("print(1)", "not a part of a condition"),
        ("cpl ==", "invalid syntax"),
        ("", "a condition is empty"),
    ],
)
def test_what_is_no_condition(trapline_command, disk, condition, complaint):
    done = trapline_command("run", disk, "--where", condition)
    assert (done.status, done.out) == (2, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_a_stop_ends_the_run_with_context_and_explanation(trapline_command, disk, play, tmp_path):
    play(UD, PF)
    path = tmp_path / "records.jsonl"
    done = trapline_command("run", disk, "-o", path, "--stop", "gp", "--stop", "if address < 0x2000")
    assert done.status == 0
    for line in ("where it stopped  cpl 0  f000:", "code", "why it was raised", "guest: stopped at an exception after"):
        assert any(found.startswith(line) for found in done.err.splitlines()), line
    assert "stop if address < 0x2000: #PF(0x2) at f000:fff0\n" in done.err
    assert names(path.read_text()) == ["#UD"]


def test_a_stop_as_json(trapline_command, disk, play):
    play(UD, PF)
    done = trapline_command("run", disk, "--json", "--stop", "pf")
    summary = json.loads(done.out)
    assert (done.status, summary["exit_code"], summary["ending"]) == (0, 0, "exception")
    assert summary["detail"] == "stop pf: #PF(0x2) at f000:fff0"
    assert [line["name"] for line in summary["last"]] == ["#UD"]
    assert int(summary["crash"]["registers"]["rip"], 16) == 0xFFF0
    assert summary["explanation"] is not None


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--stop", "pff"], "stop 'pff': 'pff' names no exception; did you mean pf"),
        (["--stop", "pf if colour"], "there is no column colour"),
        (["--stop", "cpl == 0"], "stop 'cpl == 0': a condition follows `if`: if cpl == 0"),
        (["--stop", "pf,gp if cpl", "-e", "pf,ud"], "--stop pf,gp if cpl: #GP is not forced; add gp to --exceptions"),
        (["--stop", "ud,gp", "-e", "pf"], "--stop ud,gp: #UD, #GP are not forced; add ud,gp to --exceptions"),
        (["--stop", "if cpl", "-e", "none"], "--stop if cpl: nothing is forced; add all to --exceptions"),
    ],
)
def test_what_is_no_stop(trapline_command, disk, play, words, complaint):
    play()
    done = trapline_command("run", disk, *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("trapline: ")
    assert complaint in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("option", ["-o", "--console"])
@pytest.mark.parametrize("name", ["", ".", "nowhere/file"])
def test_a_file_that_cannot_be_written(trapline_command, disk, play, monkeypatch, tmp_path, option, name):
    play()
    monkeypatch.chdir(tmp_path)
    done = trapline_command("run", disk, option, name)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"trapline: {option} {name}: ")
    assert done.err.count("\n") == 1


def test_a_full_disk_ends_the_run_with_a_line_and_the_summary(trapline_command, disk, play):
    play(UD, PF)
    done = trapline_command("run", disk, "-o", "/dev/full")
    assert done.status == 1
    assert "guest: failed after" in done.err
    assert [line for line in done.err.splitlines() if line.startswith("trapline")] == [
        "trapline: /dev/full: No space left on device; what was recorded before is kept"
    ]


def test_the_console_goes_to_a_file_whatever_its_name(trapline_command, disk, play, tmp_path):
    opened = play()
    path = tmp_path / "a,b.txt"
    trapline_command("run", disk, "--console", path)
    assert path.read_bytes() == b""
    assert opened.settings["serial"][-1] == "chardev:trapline.console"


def test_reboot_starts_a_reset_machine_again(trapline_command, disk, play):
    opened = play(UD, Outcome.RESET, UD)
    done = trapline_command("run", disk, "--reboot", "--json")
    assert json.loads(done.out)["recorded"] == 2
    assert len(opened.processor.entries) == 5
