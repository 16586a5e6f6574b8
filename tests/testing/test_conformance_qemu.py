import shutil
import time

import pytest

from trapline.arch.exits import ExitCode
from trapline.asm.operands import EAX, Mem
from trapline.machine.processor import Outcome
from trapline.processors.qemu.launch import open_qemu
from trapline.testing.conformance import CHECKS, Check, ConformanceError, Exit, Turn, run
from trapline.testing.conformance.code import assemble
from trapline.testing.conformance.modes import CODE_SIZE, DATA, PROTECTED_32

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

_EXT = "the error code of a gate has EXT clear, and in long mode another form (seg_helper.c, do_interrupt64)"
EXEMPT = {
    "#AC by": "TCG checks no alignment",
    "#XM by": "TCG raises no exceptions of SSE",
    "HLT in": "nRIP is supplied for the exits that the hypervisor asks for, and HLT is not among them",
    "inject #CP": "TCG knows no #CP and pushes no error code for it",
    "an interrupt through an absent gate": _EXT,
    "an NMI through an absent gate": _EXT,
    "#UD through an absent gate": _EXT,
    "INT n through an absent gate in 64-bit": _EXT,
    "INT n through an absent gate in compatibility": _EXT,
    "#BP through an absent gate in 64-bit": _EXT,
    "#BP through an absent gate in compatibility": _EXT,
    "#OF through an absent gate in compatibility": _EXT,
    "shadow at the entry": "TCG's VMRUN does not load the interrupt shadow",
    "VMRUN refuses: #BR of 64-bit code": "TCG's VMRUN takes it",
    "code that changes": "TCG keeps its translation when another process writes over code",
}
"""Where QEMU 7.2's TCG departs from the manual and nothing mends it, by the beginning of the checks' names."""


_LINES = (
    *(("mov", EAX, 0x1FF), ("mov", Mem(None, 0xFEE0_00F0), EAX)),
    *(("mov", EAX, 0x400), ("mov", Mem(None, 0xFEE0_0360), EAX)),
    *("end:", "cpuid"),
)
_CODE = assemble(32, *_LINES)
_EXIT = Exit(ExitCode.CPUID, rip=_CODE.labels["end"], changes={"save.rax": 0x400})
NMIS = Check("NMIs", "the local APIC passes NMIs", PROTECTED_32, 0, _CODE.blob, (Turn(_EXIT),), at=DATA - CODE_SIZE)
"""Kicks are NMIs; a BIOS does this."""


@pytest.fixture(scope="module")
def processor():
    with open_qemu(guest=["-nodefaults"], options=["-cpu", "max"], memory=16 << 20) as processor:
        assert processor.run(time.monotonic() + 30) is Outcome.RESET
        processor._fresh = False  # the BIOS, where a guest starts otherwise, is not wanted
        run(NMIS, processor)
        yield processor


def exempt(check):
    """Return the marks of a check: exempt ones must fail, or they are exempt no more."""
    reasons = [reason for start, reason in EXEMPT.items() if check.name.startswith(start)]
    return [pytest.mark.xfail(reason=reason, raises=ConformanceError, strict=True) for reason in reasons]


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name, marks=exempt(check)) for check in CHECKS])
def test_qemu_conforms(check, processor, conform):
    conform(check, processor)
