import json

import pytest

from trapline.errors import ProcessorMissing
from trapline.processors.qemu import uefi


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that writes a descriptor, and the two files that it names."""
    folders = [tmp_path / name for name in ("config/qemu/firmware", "etc", "share")]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(uefi, "_FOLDERS", tuple(map(str, folders[1:])))
    for folder in folders:
        folder.mkdir(parents=True)

    def install(name, where=2, *, files=True, **changes):
        code, variables = (tmp_path / f"{name}-{where}-{part}.fd" for part in ("code", "vars"))
        if files:
            code.write_bytes(b"code")
            variables.write_bytes(b"vars")
        descriptor = {
            "description": "UEFI",
            "interface-types": ["uefi"],
            "mapping": {
                "device": "flash",
                "executable": {"filename": str(code), "format": "raw"},
                "nvram-template": {"filename": str(variables), "format": "raw"},
            },
            "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
            "features": ["acpi-s3"],
            "tags": [],
            **changes,
        }
        (folders[where] / f"{name}.json").write_text(json.dumps(descriptor))
        return code, variables

    return install


def test_the_first_by_name_is_taken(install):
    install("60-late")
    early = install("50-early")
    assert uefi.find_uefi() == early


def test_a_descriptor_of_the_users_hides_one_of_the_same_name(install):
    install("50")
    install("50", where=1)
    own = install("50", where=0)
    assert uefi.find_uefi() == own


@pytest.mark.parametrize(
    "changes",
    [
        {"files": False},
        {"features": ["requires-smm", "acpi-s3"]},
        {"features": ["intel-tdx"]},
        {"interface-types": ["bios"]},
        {"mapping": {"device": "memory", "filename": "x"}},
        {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
        {"targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}]},
        {"targets": "x86_64"},
    ],
)
def test_other_firmware_is_passed_over(install, changes):
    install("10", **changes)
    with pytest.raises(ProcessorMissing, match="apt install ovmf"):
        uefi.find_uefi()
    assert install("20") == uefi.find_uefi()


def test_what_is_not_json_is_passed_over(install, tmp_path):
    for name, content in (("01", b"{"), ("02", b"\xff"), ("03", b"[]")):
        (tmp_path / "etc" / f"{name}.json").write_bytes(content)
    assert install("10") == uefi.find_uefi()
