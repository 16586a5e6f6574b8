import json
import lzma
import subprocess

import pytest

from tools.kvm import __main__ as outside
from tools.kvm import host, inside
from tools.testguests import Unobtainable


def test_a_difference_is_the_first_line_that_is_not_the_same():
    assert inside.difference([b"a", b"b"], [b"a", b"b"]) == ""
    assert inside.difference([b"a", b"b"], [b"a", b"c"]) == "line 2: plain 'b', trapline 'c'"
    assert inside.difference([b"a", b"b"], [b"a"]) == "line 2: plain 'b', trapline '<end>'"
    assert inside.difference([b"a"], [b"a", b"b"]) == "line 2: plain '<end>', trapline 'b'"


@pytest.fixture
def modules(tmp_path):
    """A kernel's folder of modules: a needs b, which needs c; d is built in."""
    (tmp_path / "kernel/drivers").mkdir(parents=True)
    for name, needs in (("a-one", b"b,d"), ("b", b"c"), ("c", b"")):
        content = lzma.compress(b"ELF\0depends=" + needs + b"\0")
        (tmp_path / f"kernel/drivers/{name}.ko.xz").write_bytes(content)
    (tmp_path / "modules.builtin").write_text("kernel/drivers/d.ko\n")
    return tmp_path


def test_modules_come_after_those_that_they_need(modules):
    found = host.in_order(modules, ("a_one", "b"))
    assert list(found) == ["c", "b", "a_one"]
    assert found["c"] == b"ELF\0depends=\0"


def test_a_module_that_is_not_there_is_told(modules):
    with pytest.raises(Unobtainable, match="no module e"):
        host.in_order(modules, ("e",))


class Booted:
    """A host that has ended."""

    def poll(self):
        return 0


@pytest.mark.parametrize(
    ("differences", "done", "status", "words"),
    [
        (["", ""], True, 0, "as it should be"),
        (["", "line 3"], True, 1, "line 3"),
        (["", ""], False, 1, "the host ended before the tests did"),
        ([], True, 1, "the host ended before the tests did"),
    ],
)
def test_the_table_fails_by_a_difference_and_by_an_early_end(tmp_path, capsys, differences, done, status, words):
    rows = [inside.Row("count none", 2.5, difference) for difference in differences]
    (tmp_path / "rows").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows))
    if done:
        (tmp_path / "done").touch()
    assert outside.watch(Booted(), tmp_path) == status
    assert words in capsys.readouterr().out


def test_what_a_check_raises_is_a_difference():
    def check():
        raise subprocess.TimeoutExpired("qemu", 5)

    assert inside.timed("long all", check).difference.startswith("TimeoutExpired")
