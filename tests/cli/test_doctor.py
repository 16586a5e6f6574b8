import importlib.metadata
import json

import pytest

from trapline.cli import doctor as doctor_room
from trapline.processors.qemu import kvm, launch
from trapline.processors.qemu.facts import MANUAL


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch):
    monkeypatch.setattr(
        launch, "try_out", lambda program=None, accelerator="tcg": f"the monitor starts with {accelerator}"
    )
    monkeypatch.setattr(launch, "facts_of", lambda program: MANUAL._replace(nests_in_real_mode=False))
    monkeypatch.setattr(kvm, "nested_svm_missing", lambda: "/dev/kvm is a stone")


@pytest.fixture
def qemu(program):
    return program("echo 'QEMU emulator version 8.1.0 (made up)'")


def test_a_machine_that_can_run_guests(trapline_command, qemu):
    done = trapline_command("doctor", "--qemu", qemu)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[-1] == "guests can be run"
    assert f"{qemu} 8.1.0" in done.out
    (line,) = (line for line in lines if "accel kvm" in line)
    assert line.split(maxsplit=1)[0] == "no"  # one can do without
    assert line.endswith("/dev/kvm is a stone")
    assert "ok       INT1           raises #DB" in lines
    (line,) = (line for line in lines if "--isolate" in line)
    assert line.startswith("no ")
    assert line.endswith("refused: nested page tables are not walked while the guest's paging is off")


def test_kvm_is_tried_out(trapline_command, qemu, monkeypatch):
    monkeypatch.setattr(kvm, "nested_svm_missing", lambda: None)
    done = trapline_command("doctor", "--qemu", qemu)
    assert "ok       accel kvm      the monitor starts with kvm" in done.out.splitlines()


def test_the_same_as_json(trapline_command, qemu):
    done = trapline_command("doctor", "--json", "--qemu", qemu)
    found = json.loads(done.out)
    assert found["ready"] is True
    names = {finding["name"] for finding in found["findings"]}
    assert names >= {"Python", "numpy", "QEMU", "BIOS", "accel tcg", "accel kvm"}
    for finding in found["findings"]:
        assert set(finding) == {"name", "fine", "needed", "detail"}


def test_without_qemu(trapline_command, without_programs):
    done = trapline_command("doctor")
    assert done.status == 1
    assert "MISSING  QEMU" in done.out
    assert "apt install qemu-system-x86" in done.out
    assert "ok       in process" in done.out
    assert done.out.endswith("guests that need no PC can be run; the others need what is missing above\n")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'QEMU emulator version 6.2.0'", "is QEMU 6.2.0; trapline needs 7.2 or newer"),
        ("echo 'I am a teapot'", "does not look like QEMU: it answered 'I am a teapot"),
        ("exit 3", "does not look like QEMU: it answered ''"),
    ],
)
def test_what_is_not_the_right_qemu(trapline_command, program, script, words):
    done = trapline_command("doctor", "--qemu", program(script))
    assert done.status == 1
    assert words in done.out


def test_a_program_that_does_not_exist(trapline_command):
    done = trapline_command("doctor", "--qemu", "/nonexistent")
    assert done.status == 1
    assert "/nonexistent: no such program" in done.out


def test_without_a_library(trapline_command, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_room.importlib.metadata, "version", version)
    done = trapline_command("doctor")
    assert done.status == 1
    assert "MISSING  iced-x86       pip install 'trapline'" in done.out
    assert done.out.endswith("no guest can be run: install what is missing above\n")


@pytest.mark.slow
@pytest.mark.qemu
def test_this_machine(in_a_process):
    done = in_a_process("doctor")
    assert done.status == 0
    assert "the monitor starts and has SVM" in done.out
