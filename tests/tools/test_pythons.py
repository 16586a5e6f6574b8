import shutil
import subprocess

import pytest

from tools import pythons
from tools.testguests import Unobtainable


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache, and no Python at hand."""
    monkeypatch.setenv("TRAPLINE_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name.startswith("python") else which(name))
    return tmp_path / "cache"


@pytest.fixture
def releases(package, monkeypatch):
    """Every release has one package: a Python, and a loader that shows its arguments. Return the names asked for."""
    archive = package(**{"python3.14": "a program"})
    asked = []

    class Release:
        def __init__(self, name, folder):
            asked.append(name)

        def with_dependencies(self, *packages):
            return [archive]

    monkeypatch.setattr(pythons, "Release", Release)
    return asked


def program(path, status):
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_an_unpacked_python_runs_with_its_own_libraries_and_is_kept(releases, cache):
    found = pythons.python("3.14")
    usr = cache / "python-3.14/usr"
    told = subprocess.run([found, "-c", "a b"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert told == [
        *("--argv0", str(found), "--library-path", f"{usr}/lib/x86_64-linux-gnu"),
        *(f"{usr}/bin/python3.14.elf", "-c", "a b"),
    ]
    assert (usr / "bin/python3.14.elf").read_text() == "a program"
    assert pythons.python("3.14") == found
    assert releases == ["sid"]


def test_what_is_at_hand_and_runs_is_taken(tmp_path, monkeypatch):
    shim = program(tmp_path / "shims/python3.13", 127)
    monkeypatch.setattr(shutil, "which", lambda name: str(shim))
    versions = tmp_path / "pyenv/versions"
    program(versions / "3.13.1/bin/python3.13", 1)
    runs = program(versions / "3.13.0/bin/python3.13", 0)
    assert pythons.python("3.13") == runs


def test_what_is_nowhere_is_skipped_with_the_reason(capsys):
    with pytest.raises(Unobtainable, match=r"3\.12 is not installed, and no release of Debian has it"):
        pythons.python("3.12")
    assert pythons.main(["2.7"]) == 2
    assert "there are 3.12, 3.13, 3.14" in capsys.readouterr().err


@pytest.mark.parametrize(("statuses", "status"), [([0, 0], 0), ([1, 0], 1), ([0, None], 0), ([None, None], 1)])
def test_the_status_is_that_of_the_tests(statuses, status, tmp_path, monkeypatch, capsys):
    given = dict(zip(("3.12", "3.13"), statuses, strict=True))

    def environment(version):
        if given[version] is None:
            raise Unobtainable(f"no {version}")
        return program(tmp_path / version / "python", given[version])

    monkeypatch.setattr(pythons, "environment", environment)
    monkeypatch.setattr(pythons, "output_of", lambda what, command, folder: "Python")
    assert pythons.main([*given]) == status
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped")] == [
        f"skipped: no {version}" for version in given if given[version] is None
    ]
