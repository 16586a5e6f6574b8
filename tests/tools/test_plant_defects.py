import ast
import re
import shutil
from pathlib import Path

import pytest

from tools import plant_defects
from tools.defect import Defect
from tools.defects import DEFECTS
from tools.plant_defects import GUESTS, CannotTell, Verdict, planted, stages

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A checkout of one file, with tests that pass as long as it says 1."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.py").write_text("VALUE = 1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("import one\n\n\ndef test_it():\n    assert one.VALUE == 1\n")
    return tmp_path


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.number)
def test_every_defect_fits_the_code_and_changes_it(defect):
    text = (ROOT / defect.file).read_text(encoding="utf-8")
    broken = planted(defect, ROOT)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(text))


def test_the_table_is_whole():
    numbers = [defect.number for defect in DEFECTS]
    assert len(set(numbers)) == len(numbers)
    plain = [int(re.sub(r"\D", "", number)) for number in numbers]
    assert set(plain) == set(range(1, max(plain) + 1))


@pytest.mark.parametrize("defect", [one for one in DEFECTS if one.tests], ids=lambda defect: defect.number)
def test_the_tests_that_a_defect_names_are_there(defect):
    paths = [word for word in defect.tests if word.startswith("tests/")]
    assert paths
    assert all((ROOT / path.partition("::")[0]).exists() for path in paths)


@pytest.mark.parametrize(
    ("defect", "expected"),
    [
        (Defect("1", "a defect", "src/one.py", "1", "2"), [("tests/b",), GUESTS]),
        (Defect("1", "a defect", "src/one.py", "1", "2", "no guest"), [("tests/b",)]),
        (Defect("1", "a defect", "src/one.py", "1", "2", tests=("tests/a",)), [("tests/a",), ("tests/b",), GUESTS]),
        (Defect("1", "a defect", "src/trapline/arch/one.py", "1", "2"), [("tests/arch",), ("tests/b",), GUESTS]),
        (Defect("1", "a defect", "src/trapline/nowhere/one.py", "1", "2"), [("tests/b",), GUESTS]),
    ],
)
def test_the_tests_that_a_defect_names_come_first(defect, expected):
    assert [tests for tests, _ in stages(defect, ["tests/b"])] == expected


@pytest.mark.parametrize(
    ("planted_in", "acceptance", "runs"),
    [("named", False, ["named"]), ("unit", False, ["named", "unit"]), ("guests", False, ["named", "unit", "guests"]),
     ("named", True, ["named", "guests"]), (None, False, ["named", "unit", "guests"])],
)  # fmt: skip
def test_dearer_tests_run_only_where_cheaper_ones_notice_nothing(
    checkout, tmp_path_factory, monkeypatch, planted_in, acceptance, runs
):
    folder, ran = tmp_path_factory.mktemp("defects"), []
    tests = {"named": ("tests/a",), "unit": ("tests/b",), "guests": GUESTS}
    names = {value: name for name, value in tests.items()}

    def run_tests(where, words, limit):
        name = names[tuple(words)]
        if where.name == "planted":
            ran.append(name)
        return Verdict(name if where.name == "planted" and name == planted_in else None, 0)

    monkeypatch.setattr(plant_defects, "copy_checkout", lambda target: shutil.copytree(checkout, target))
    monkeypatch.setattr(plant_defects, "unit_tests", lambda pristine: list(tests["unit"]))
    monkeypatch.setattr(plant_defects, "run_tests", run_tests)
    defect = Defect("1", "a defect", "src/one.py", "= 1", "= 2", tests=tests["named"])
    unnoticed = plant_defects.try_defects([defect], folder, acceptance=acceptance)
    assert (ran, unnoticed) == (runs, [] if planted_in else ["1"])


def test_a_defect_replaces_exactly_one_place(checkout):
    assert planted(Defect("1", "a defect", "src/one.py", "= 1", "= 2"), checkout) == "VALUE = 2\n"


@pytest.mark.parametrize(("text", "places"), [("", 0), ("VALUE = 2\n", 0), ("VALUE = 1\n" * 2, 2)])
def test_a_defect_that_fits_no_place_or_several_is_refused(checkout, text, places):
    (checkout / "src" / "one.py").write_text(text)
    with pytest.raises(CannotTell, match=rf"defect 1 \(a defect\) fits {places} places of src/one.py, not one"):
        planted(Defect("1", "a defect", "src/one.py", "= 1", "= 2"), checkout)


def test_a_defect_in_a_file_that_is_gone_is_told(tmp_path):
    with pytest.raises(CannotTell, match="fits 0 places of src/gone"):
        planted(Defect("1", "a defect", "src/gone.py", "1", "2"), tmp_path)


@pytest.mark.parametrize(
    ("text", "noticed_by"), [("VALUE = 1\n", None), ("VALUE = 2\n", "test_one.py::test_it")], ids=["sound", "broken"]
)
def test_the_first_failing_test_is_named(checkout, text, noticed_by):
    (checkout / "src" / "one.py").write_text(text)
    assert plant_defects.run_tests(checkout, ["tests/test_one.py"], 60).noticed_by == noticed_by


@pytest.mark.parametrize(
    "test", ["import gone\n", "VALUE = 1\n", "import pytest\npytest.skip('', allow_module_level=True)\n"]
)
def test_tests_that_do_not_run_tell_nothing(checkout, test):
    (checkout / "tests" / "test_one.py").write_text(test)
    with pytest.raises(CannotTell, match="the tests do not run"):
        plant_defects.run_tests(checkout, ["tests/test_one.py"], 60)


def test_a_test_without_end_has_noticed(checkout):
    (checkout / "tests" / "test_one.py").write_text("import time\ntime.sleep(60)\n")
    assert plant_defects.run_tests(checkout, ["tests/test_one.py"], 1).noticed_by == "no end after 1 s"


def test_the_copy_is_what_its_tests_import(tmp_path):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    plant_defects.copy_checkout(tmp_path)  # refuses by itself when another package would win
    for name in ("src/trapline/hypervisor/vm.py", "tests/hypervisor/test_vm.py", "pyproject.toml"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    tests = plant_defects.unit_tests(tmp_path)
    assert {"tests/hypervisor", "tests/processors"} == set(tests[:2])
    assert "tests/tools/test_fuzzing.py" in tests
    assert not {"tests/acceptance", "tests/tools", "tests/tools/test_plant_defects.py"} & set(tests)


@pytest.mark.parametrize(
    ("only", "numbers"),
    [("4", ["4"]), ("7b,4", ["4", "7b"]), ("2", ["2a", "2b"]), ("", [one.number for one in DEFECTS])],
)
def test_defects_are_chosen_by_their_numbers(only, numbers):
    assert [one.number for one in plant_defects.chosen(only)] == numbers


def test_a_number_that_does_not_exist_is_told(capsys):
    assert plant_defects.main(["--only", "3,999"]) == 2
    assert "no defect has the number 999" in capsys.readouterr().err


def test_the_list_names_them_all(capsys):
    assert plant_defects.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(DEFECTS)
