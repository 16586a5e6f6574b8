"""Which files QEMU's options may name."""

import pytest

from trapline.processors.qemu.named_files import named_files


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["-hda", "x.img"], "x.img"),
        (["-drive", "file=a,,b.img,format=raw"], "a,b.img"),
        (["-drive", "format=raw,file=a,,,if=ide"], "a,"),
        (["-drive", "file=x=y.img"], "x=y.img"),
        (["-serial", "file:log"], "log"),
        (["-drive", "file=fat:rw:folder"], "folder"),
        (["-hda", "file:///tmp/x"], "/tmp/x"),
        (["-initrd", "module argument,other"], "module"),
        (["-initrd", "module argument,other"], "other"),
        (["-blockdev", '{"driver": "qcow2", "file": {"filename": "x.qcow2"}}'], "x.qcow2"),
        (["-drive", 'file=json:{"file": {"filename": "a,b"}}'], "a,b"),
    ],
)
def test_a_name(options, name):
    assert name in set(named_files(options))


@pytest.mark.parametrize("options", [[], [""], ["", ""], ["-x", ""], ["-blockdev", "{"], ["-blockdev", "{" * 100_000]])
def test_no_name_is_empty(options):
    assert all(named_files(options))
