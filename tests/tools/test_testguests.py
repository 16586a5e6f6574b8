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


IMAGE, BINARY = "linux-image-6.1.0-1-cloud-amd64", "linux-binary-7.2.0-cloud-amd64"
DEPENDS = {
    "older": {testguests.KERNEL_PACKAGE: f"  Depends: {IMAGE}", IMAGE: "  Depends: kmod"},
    "newer": {
        testguests.KERNEL_PACKAGE: "  Depends: linux-base\n  Depends: linux-image-7.2.0-cloud-amd64",
        "linux-image-7.2.0-cloud-amd64": f"  PreDepends: linux-base\n  Depends: {BINARY}",
    },
}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Return a function that plays a mirror with the packages of an older or a newer release."""
    monkeypatch.setenv("TRAPLINE_TEST_CACHE", str(tmp_path))

    def mirror(age):
        monkeypatch.setattr(testguests, "missing_tools", lambda *tools: [])
        monkeypatch.setattr(testguests, "output_of", lambda what, command, folder: DEPENDS[age][command[-1]])

    return mirror


@pytest.mark.parametrize(
    ("age", "name", "place", "version"),
    [
        ("older", IMAGE, "boot/vmlinuz-6.1.0-1-cloud-amd64", "6.1.0-1-cloud-amd64"),
        ("newer", BINARY, "usr/lib/modules/7.2.0-cloud-amd64/vmlinuz", "7.2.0-cloud-amd64"),
    ],
)
def test_the_kernel_is_found_where_its_release_has_it(mirror, tmp_path, monkeypatch, age, name, place, version):
    mirror(age)
    kernel = tmp_path / name / place

    def package(asked):
        assert asked == name
        kernel.parent.mkdir(parents=True)
        kernel.touch()
        return tmp_path / name

    monkeypatch.setattr(testguests, "package", package)
    assert testguests.linux_kernel() == kernel
    assert testguests.linux_kernel() == kernel  # now from the cache
    assert testguests.kernel_version(kernel) == version


@pytest.mark.parametrize("place", ["bin/busybox", "usr/bin/busybox"])
def test_busybox_is_found_before_and_after_the_merge_of_usr(tmp_path, monkeypatch, place):
    monkeypatch.setenv("TRAPLINE_TEST_CACHE", str(tmp_path))
    program = tmp_path / "busybox-static" / place
    program.parent.mkdir(parents=True)
    program.write_bytes(b"a program")
    assert b"a program" in testguests.linux_initrd().read_bytes()
    program.unlink()
    with pytest.raises(testguests.Unobtainable, match="0 files match bin/busybox or usr/bin/busybox"):
        testguests.linux_initrd()
