"""What a processor took that a real one refuses is told, of a guest that ends well, too."""

import pytest

from tests.explain.broken import kernel
from tests.explain.kinds import efer, sets
from tests.explain.machines import PML4, Machine
from trapline.api import run
from trapline.arch.registers import CR4, EFER
from trapline.asm import operands
from trapline.explain.cpuid import CpuidAnswers
from trapline.explain.tolerated import ask_about_cr4, unsupported
from trapline.report.result import Ending


def test_bits_of_cr4_that_the_cpu_lacks():
    has = CpuidAnswers(source=lambda function, subfunction: (0xFFFF_FFFF,) * 4)
    lacks = CpuidAnswers(source=lambda function, subfunction: (0, 0, 1 << 26, 1 << 6))
    for answers in (has, lacks):
        ask_about_cr4(answers)
        answers.detach()
    save = Machine(cr4=CR4.PAE | CR4.PCIDE, cr3=PML4 | 5).save
    assert list(unsupported(save, has)) == []
    (told,) = unsupported(save, lacks)
    assert told == (
        "CR4 is 0x20020, and the guest's CPU lacks PCIDE (CPUID function 0x1, ECX bit 17): a real processor raises "
        "#GP(0) at a MOV to CR4 that sets it, and one with PCIDE where CR3[11:0] is not zero: it is 0x5."
    )
    save.cr3 = PML4
    assert next(unsupported(save, lacks)).endswith("that sets it.")


@pytest.mark.qemu
@pytest.mark.slow
def test_a_guest_that_ends_well_under_qemu(tmp_path):
    def raises(made):
        efer(0, EFER.LME)(made)
        sets(operands.CR4, CR4.PCIDE)(made)

    guest = tmp_path / "guest"
    guest.write_bytes(kernel(raises=raises)())
    done = run(guest, processor="qemu", timeout=60)
    assert (done.ending, done.exit_code) == (Ending.DEBUG_EXIT, 0)
    wrmsr, cr4 = done.warnings
    assert "(wrmsr), and this one does not: the CPU rejects wrmsr of 0x401 to EFER (0xc0000080): LME cannot" in wrmsr
    assert cr4.startswith("CR4 is 0x20620, and the guest's CPU lacks PCIDE")
    assert done.to_json()["warnings"] == [wrmsr, cr4]
