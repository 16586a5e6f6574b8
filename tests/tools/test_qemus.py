import shutil
import subprocess

import pytest

from tools import qemus
from tools.testguests import Unobtainable

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAPLINE_TEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(package):
    """A package whose loader shows what it is called with."""
    return package()


def test_an_unpacked_qemu_runs_with_its_own_libraries_and_is_kept(archive, cache, monkeypatch):
    monkeypatch.setattr(qemus, "_download", lambda release, folder: [archive])
    program = qemus.program("trixie")
    root = cache / "qemu-trixie" / "root"
    told = subprocess.run([program, "-cpu", "a b"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert told[:2] == ["--library-path", f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"]
    assert told[2] == f"{root}/usr/bin/qemu-system-x86_64"
    assert told[-2:] == ["-cpu", "a b"]
    monkeypatch.setattr(qemus, "_download", None)
    assert qemus.program("trixie") == program


def test_what_cannot_be_had_has_a_reason_and_leaves_nothing(cache, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'E: no such mirror' >&2\nexit 100\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    with pytest.raises(Unobtainable, match="apt-get"):
        qemus.program("sid")
    assert list(cache.iterdir()) == []


def test_a_release_that_is_not_one_is_refused(capsys):
    assert qemus.main(["warty"]) == 2
    assert "trixie" in capsys.readouterr().err
