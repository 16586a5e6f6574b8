import pytest

from tools import testguests

VARIABLE = "TRAPLINE_KVM_UNIT_TESTS"


@pytest.mark.parametrize("named", [".", "x86"])
def test_a_build_of_kvm_unit_tests_is_found_from_its_root_and_its_images(named, tmp_path, monkeypatch):
    (tmp_path / "x86").mkdir()
    (tmp_path / "x86" / "smap.flat").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / named))
    assert testguests.kvm_unit_tests() == tmp_path / "x86"


def test_without_a_build_of_kvm_unit_tests_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(testguests.Unobtainable, match=f"{VARIABLE} does not name"):
        testguests.kvm_unit_tests()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(testguests.Unobtainable, match=f"no images .* in {tmp_path}"):
        testguests.kvm_unit_tests()
