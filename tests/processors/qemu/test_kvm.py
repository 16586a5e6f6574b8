import errno
import os
import struct

import pytest

from trapline.processors.qemu import kvm

SVM = 1 << 2
AMD = (0, 0x68747541, 0x444D4163, 0x69746E65)
INTEL = (0, 0x756E6547, 0x6C65746E, 0x49656E69)
"""EBX, ECX and EDX of CPUID function 0: the vendor."""
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
            for number, (function, *registers) in enumerate(entries):
                ENTRY.pack_into(argument, 8 + 40 * number, function, 0, 0, 0, *registers, 0, 0, 0)

        monkeypatch.setattr(kvm.os, "open", open_)
        monkeypatch.setattr(kvm.os, "close", closed.append)
        monkeypatch.setattr(kvm.fcntl, "ioctl", ioctl)
        return closed

    return install


def test_an_amd_host_with_nested_svm_will_do(device):
    closed = device([AMD, (1, 0, SVM, 0), (0x8000_0001, 0, SVM | 1, 0)])
    assert kvm.nested_svm_missing() is None
    assert closed == [77]


@pytest.mark.parametrize(
    ("vendor", "words"), [(AMD, "the module kvm_amd needs nested=1"), (INTEL, "the CPU is GenuineIntel")]
)
def test_a_host_without_svm_is_told(device, vendor, words):
    device([vendor, (1, 0, SVM, 0), (0x8000_0001, 0, ~SVM & 0xFFFF_FFFF, 0)])
    assert f"offers guests no SVM: {words}" in kvm.nested_svm_missing()


def test_a_host_that_does_not_know_is_told(device):
    device([AMD])
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
