import shutil
import time
from collections import ChainMap

import pytest

from trapline.arch.exits import ExitCode
from trapline.asm.operands import EAX, Mem
from trapline.machine.processor import Outcome
from trapline.processors.qemu.launch import facts_of, open_qemu
from trapline.processors.qemu.programs import find_qemu
from trapline.testing.conformance import CHECKS, Check, ConformanceError, Exit, Turn, run
from trapline.testing.conformance.code import assemble
from trapline.testing.conformance.modes import CODE_SIZE, DATA, PROTECTED_32

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

_EXT = "the error code of a gate has EXT clear (seg_helper.c, do_interrupt64)"
EXEMPT = {
    "#AC by": "TCG checks no alignment",
    "#XM by": "TCG raises no exceptions of SSE",
    "HLT in": "nRIP is supplied for the exits that the hypervisor asks for, and HLT is not among them",
    "inject #CP": "TCG knows no #CP and pushes no error code for it",
    "an interrupt through an absent gate": _EXT,
    "an NMI through an absent gate": _EXT,
    "#UD through an absent gate": _EXT,
    "VMRUN refuses: #BR of 64-bit code": "TCG's VMRUN takes it",
    "VMRUN refuses: EFER.SVME is clear": "the monitor sets it, for a guest that is in system management mode",
    "code that changes": "TCG keeps its translation when another process writes over code",
}
"""Where TCG departs from the manual and nothing mends it, by the beginning of the checks' names."""
EXEMPT_WHERE_NOT = {
    "plain_gate_codes": {
        f"{event} through an absent gate in {mode}": "in long mode the error code of a gate has another form"
        for event in ("INT n", "#BP", "#OF")
        for mode in ("64-bit", "compatibility")
    },
    "knows_int1": {"INT1": "#UD, as of an instruction that does not exist"},
    "loads_shadow": {"shadow at the entry": "TCG's VMRUN does not load the interrupt shadow"},
}
"""The same, by the fact of this QEMU that they need."""


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
        processor._machine.power_on._in_firmware = False  # the BIOS, where a guest starts otherwise, is not wanted
        run(NMIS, processor)
        yield processor


@pytest.fixture(scope="module")
def exempt():
    facts = facts_of(find_qemu())
    lacking = (reasons for fact, reasons in EXEMPT_WHERE_NOT.items() if not getattr(facts, fact))
    return dict(ChainMap(EXEMPT, *lacking))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_qemu_conforms(check, processor, conform, exempt, request):
    """Exempt checks must fail, or they are exempt no more."""
    for start, reason in exempt.items():
        if check.name.startswith(start):
            request.applymarker(pytest.mark.xfail(reason=reason, raises=ConformanceError, strict=True))
    conform(check, processor)


@pytest.mark.parametrize("start", [*EXEMPT, *(start for each in EXEMPT_WHERE_NOT.values() for start in each)])
def test_each_exemption_is_of_a_check(start):
    assert any(check.name.startswith(start) for check in CHECKS) is (start != "#OF through an absent gate in 64-bit")
