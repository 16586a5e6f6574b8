import json
from pathlib import Path

import pytest

from trapline.cli import run_options
from trapline.errors import TraplineError
from trapline.guests.guest import MEDIA
from trapline.session.output import LineWriter


@pytest.fixture
def exits(tmp_path):
    """16-bit code that says "hi" on COM1 and ends with a status."""

    def exits(status=0):
        path = tmp_path / "code"
        code = b"\xba\xf8\x03"  # mov dx, 0x3f8
        for letter in b"hi\n":
            code += bytes((0xB0, letter, 0xEE))  # mov al, letter; out dx, al
        path.write_bytes(code + bytes((0xB0, status, 0xE6, 0xF4, 0xF4)))  # mov al, status; out 0xf4, al; hlt
        return path

    return exits


def test_a_guest_without_a_pc_runs_in_this_process(trapline_command, without_programs):
    done = trapline_command("run", "sample:gp")
    assert done.status == 0
    assert "#GP" in done.out
    assert "in this process, on Unicorn: the guest needs no PC: multiboot" in done.err
    assert "#GP (13)" in done.err


def test_a_guest_that_needs_a_pc_runs_under_qemu(trapline_command, disk, play):
    play()
    done = trapline_command("-v", "run", disk)
    assert done.status == 0
    assert "on QEMU: a disk image needs a PC: the BIOS that its boot sector calls, and the disk itself" in done.err


@pytest.mark.parametrize("words", [("--isolate",), ("--accel", "tcg"), ("--", "-cpu", "max")])
def test_what_only_qemu_has_takes_qemu(trapline_command, kernel, play, words):
    opened = play()
    assert trapline_command("run", kernel, *words).status == 0
    assert opened.settings


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--processor", "unicorn", "--isolate"), "--isolate"),
        (("--processor", "unicorn", "--accel", "tcg"), "--accel"),
        (("--processor", "unicorn", "--qemu", "x"), "--qemu"),
        (("--processor", "unicorn", "--", "-cpu", "max"), "options after --"),
        (("--processor", "qemu", "--entry-mode", "16"), "--entry-mode"),
        (("--isolate", "--entry-mode", "16"), "--entry-mode"),
        (("--processor", "qemu", "--load-address", "4096"), "--load-address"),
        (("--memory", "1K"), "--memory"),
        (("--memory", "64G"), "--memory"),
    ],
)
def test_what_does_not_go_together_is_refused(trapline_command, kernel, words, named):
    done = trapline_command("run", kernel, *words)
    assert (done.status, done.out) == (2, "")
    assert named in done.err
    assert done.err.count("\n") == 1


def test_a_guest_that_needs_a_pc_is_refused_by_unicorn(trapline_command, tmp_path):
    image = tmp_path / "image.iso"
    image.write_bytes(bytes(0x8000) + b"\x01CD001\x01" + bytes(0x1000))
    done = trapline_command("run", image, "--processor", "unicorn")
    assert done.status == 2
    assert "needs a PC" in done.err
    assert done.err.rstrip().endswith("leave out --processor unicorn")


@pytest.mark.parametrize(
    ("words", "drive", "why"),
    [((), "ide", "--media floppy: a floppy"), (("--media", "floppy"), "floppy", "floppy image, as you said")],
)
def test_an_image_is_a_floppy_if_the_user_says_so(trapline_command, disk, play, words, drive, why):
    opened = play()
    done = trapline_command("run", disk, *words)
    assert done.status == 0
    assert why in done.err
    assert any(option.endswith(f"if={drive}") for option in opened.settings["guest"])


@pytest.mark.parametrize(
    "words",
    [("sample:gp", "--media", "disk"), ("--media", "disk"), ("kernel", "--media", "floppy", "--entry-mode", "16")],
)
def test_media_are_for_some_guests(trapline_command, words):
    done = trapline_command("run", *words)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "--media is for" in done.err


@pytest.mark.parametrize(
    ("option", "ours"),
    [
        ("-m", "--memory"),
        ("-smp", "--cpus"),
        ("-accel", "--accel"),
        ("-enable-kvm", "--accel"),
        ("-append", "--append"),
        ("-initrd", "--initrd"),
        ("-kernel", "GUEST"),
        ("-hda", "trapline run GUEST -- -hda"),
    ],
)
def test_an_option_of_qemu_has_its_place(trapline_command, option, ours):
    done = trapline_command("run", "kernel", option, "2")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"{option} is QEMU's: " in done.err
    assert ours in done.err


@pytest.mark.parametrize(
    ("option", "shared"), [("-monitor", True), ("-debugcon", True), ("-serial", False)], ids=lambda value: str(value)
)
def test_stdio_that_a_device_of_qemu_takes_is_shared(trapline_command, disk, play, option, shared):
    opened = play()
    assert trapline_command("run", disk, "--", option, "stdio").status == 0
    assert (opened.settings["serial"] != ["-serial", "stdio"]) is shared


def test_the_parsers_copy_of_the_media():
    assert tuple(MEDIA) == run_options.MEDIA


def test_code_without_a_header(trapline_command, exits):
    done = trapline_command("run", exits(), "--entry-mode", "16")
    assert (done.status, done.out) == (0, "hi\n")


@pytest.mark.parametrize(("whose", "status"), [("trapline", 4), ("guest", 7)])
def test_a_failure_that_the_guest_reports(trapline_command, exits, whose, status):
    assert trapline_command("run", exits(3), "--entry-mode", "16", "--exit-code", whose).status == status


def test_json_has_the_console_on_stderr(trapline_command, exits):
    done = trapline_command("run", exits(), "--entry-mode", "16", "--json")
    summary = json.loads(done.out)
    assert (summary["processor"], summary["ending"], summary["hints"]) == ("unicorn", "debug_exit", [])
    assert "hi\n" in done.err


def test_the_console_in_a_file(trapline_command, exits, tmp_path):
    done = trapline_command("run", exits(), "--entry-mode", "16", "--console", tmp_path / "console")
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "console").read_bytes() == b"hi\n"


def test_a_guest_that_halts_for_good_ends(trapline_command, tmp_path):
    path = tmp_path / "code"
    path.write_bytes(b"\xfa\xf4")  # cli; hlt
    done = trapline_command("run", path, "--entry-mode", "16")
    assert done.status == 0
    assert "guest: halted, and nothing can wake it" in done.err


def test_a_loop_ends_at_the_timeout(trapline_command, tmp_path):
    path = tmp_path / "code"
    path.write_bytes(b"\xeb\xfe")  # jmp to itself
    done = trapline_command("run", path, "--entry-mode", "16", "--timeout", "0.2")
    assert done.status == 124


def test_a_device_that_is_not_there_is_named(trapline_command, tmp_path):
    path = tmp_path / "code"
    path.write_bytes(b"\xba\xf7\x01\xec\xec\xfa\xf4")  # mov dx, 0x1f7; in al, dx twice; cli; hlt
    done = trapline_command("run", path, "--entry-mode", "16")
    assert done.err.count("an IDE disk (port 0x1f7); this machine has none, QEMU has: --processor qemu") == 1


def test_a_triple_fault_has_its_chain(trapline_command):
    done = trapline_command("run", "sample:no-ist")
    assert done.status == 3
    assert "triple fault: the last exceptions, newest last" in done.err
    assert "-> shutdown" in done.err


def test_lines_are_seen_at_once(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        console = LineWriter(file)
        console.write(b"half a")
        assert (tmp_path / "file").read_bytes() == b""
        console.write(b" line\nand")
        assert (tmp_path / "file").read_bytes() == b"half a line\nand"


def test_a_console_that_cannot_be_opened(trapline_command, tmp_path):
    done = trapline_command("run", "sample:ud", "--console", tmp_path)
    assert (done.status, done.err) == (2, f"trapline: --console {tmp_path}: Is a directory\n")


@pytest.mark.parametrize("processor", ["unicorn", pytest.param("qemu", marks=pytest.mark.qemu)])
def test_a_console_on_a_full_disk(trapline_command, processor):
    complaint = pytest.raises(TraplineError, match="console cannot be written")
    with Path("/dev/full").open("wb", buffering=0) as file, complaint:
        LineWriter(file).write(b"line\n")
    done = trapline_command("run", "sample:ud", "--console", "/dev/full", "--processor", processor)
    assert done.status == 1
    assert "Traceback" not in done.err
    assert done.err.count("trapline: the guest's console cannot be written: No space left on device\n") == 1


def test_a_live_line_comes_between_what_the_guest_wrote_before_and_after(trapline_command, tmp_path):
    path = tmp_path / "code"
    setup = bytes.fromhex("c7061800157c bcf07b baf803")  # mov word [6 * 4], handler; mov sp, 0x7bf0; mov dx, 0x3f8
    faulty = bytes.fromhex("b061ee 0f0b b00aee f4")  # mov al, "a"; out dx, al; ud2; mov al, "\n"; out dx, al; hlt
    handler = bytes.fromhex("58 83c002 50 b062ee cf")  # pop ax; add ax, 2; push ax; mov al, "b"; out dx, al; iret
    path.write_bytes(setup + faulty + handler)
    done = trapline_command("run", path, "--entry-mode", "16", "--live", "--json")
    first, second, *_ = done.err.splitlines()
    assert first.startswith("a#UD   cpl 0  0000:")
    assert second == "b"
