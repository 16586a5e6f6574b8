import errno
import os
import struct

import pytest

from trapline.processors.qemu import kvm

SVM = 1 << 2
ENTRY = struct.Struct("<7I3I")


@pytest.fixture
def device(monkeypatch):
    """Return a function that installs a /dev/kvm which answers with CPUID entries, or fails."""
    closed = []

    def install(entries=(), *, no_device=None, no_answer=None):
        def open_(path, flags):
            assert path == "/dev/kvm"
            if no_device:
                raise OSError(no_device, os.strerror(no_device))
            return 77

        def ioctl(descriptor, request, argument):
            assert (descriptor, request) == (77, 0xC008_AE05)
            assert struct.unpack_from("<2I", argument) == (256, 0)
            assert len(argument) == 8 + 256 * 40
            if no_answer:
                raise OSError(no_answer, os.strerror(no_answer))
            struct.pack_into("<I", argument, 0, len(entries))
            for number, (function, ecx) in enumerate(entries):
                ENTRY.pack_into(argument, 8 + 40 * number, function, 0, 0, 0, 0, ecx, 0, 0, 0, 0)

        monkeypatch.setattr(kvm.os, "open", open_)
        monkeypatch.setattr(kvm.os, "close", closed.append)
        monkeypatch.setattr(kvm.fcntl, "ioctl", ioctl)
        return closed

    return install


def test_an_amd_host_with_nested_svm_will_do(device):
    closed = device([(0, 0), (1, SVM), (0x8000_0001, SVM | 1)])
    assert kvm.nested_svm_missing() is None
    assert closed == [77]


def test_a_host_without_svm_is_told(device):
    device([(1, SVM), (0x8000_0001, ~SVM & 0xFFFF_FFFF)])
    assert "offers guests no SVM" in kvm.nested_svm_missing()


def test_a_host_that_does_not_know_is_told(device):
    device([(0, 0)])
    assert "does not report the CPU that it offers" in kvm.nested_svm_missing()


@pytest.mark.parametrize(("error", "words"), [(errno.ENOENT, "No such file"), (errno.EACCES, "Permission denied")])
def test_a_missing_device_is_told(device, error, words):
    closed = device(no_device=error)
    assert f"/dev/kvm cannot be opened ({words}" in kvm.nested_svm_missing()
    assert closed == []


def test_a_device_that_is_no_kvm_is_told(device):
    closed = device(no_answer=errno.ENOTTY)
    assert "does not answer KVM's questions" in kvm.nested_svm_missing()
    assert closed == [77]
