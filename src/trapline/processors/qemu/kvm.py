"""Whether this machine's KVM supports nested SVM, which the monitor needs: asked of /dev/kvm, not guessed."""

import fcntl
import os
import struct
from typing import Final

from trapline.arch import cpuid

_DEVICE: Final = "/dev/kvm"
_GET_SUPPORTED_CPUID: Final = 0xC008_AE05
"""KVM_GET_SUPPORTED_CPUID: _IOWR(0xAE, 0x05, struct kvm_cpuid2)."""
_ENTRIES: Final = 256
_ENTRY: Final = struct.Struct("<7I3I")
"""struct kvm_cpuid_entry2: function, index, flags, eax, ebx, ecx, edx, padding."""
_WITH_SVM: Final = ("AuthenticAMD", "HygonGenuine")
"""Vendors whose CPUs have SVM (CPUID function 0)."""


def nested_svm_missing() -> str | None:
    """Return why KVM cannot give a guest SVM on this machine, or None when it can."""
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{_DEVICE} cannot be opened ({error.strerror})"
    try:
        request = bytearray(struct.pack("<2I", _ENTRIES, 0) + bytes(_ENTRIES * _ENTRY.size))
        fcntl.ioctl(descriptor, _GET_SUPPORTED_CPUID, request)
    except OSError as error:
        return f"{_DEVICE} does not answer KVM's questions ({error.strerror})"
    finally:
        os.close(descriptor)
    count = struct.unpack_from("<I", request)[0]
    vendor = ""
    for number in range(count):
        function, _, _, _, ebx, ecx, edx, *_ = _ENTRY.unpack_from(request, 8 + number * _ENTRY.size)
        if function == cpuid.VENDOR:
            vendor = struct.pack("<3I", ebx, edx, ecx).decode("latin-1")
        if function == cpuid.EXTENDED:
            if ecx & cpuid.HAS_SVM:
                return None
            if vendor in _WITH_SVM:
                return f"{_DEVICE} offers guests no SVM: the module kvm_amd needs nested=1"
            return f"{_DEVICE} offers guests no SVM: the CPU is {vendor}, and only AMD's have it"
    return f"{_DEVICE} does not report the CPU that it offers"
