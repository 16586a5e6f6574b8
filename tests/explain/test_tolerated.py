"""What a processor took that a real one refuses is told, of a guest that ends well, too."""

import re

import pytest

from tests.explain.broken import kernel
from tests.explain.kinds import efer, sets
from tests.explain.machines import PML4, Machine
from trapline.api import run
from trapline.arch.registers import CR0, CR4, EFER
from trapline.asm import operands
from trapline.explain.cpuid import CpuidAnswers
from trapline.explain.tolerated import ask_about_cr4, refused_state
from trapline.report.result import Ending


def test_bits_of_cr4_that_the_cpu_lacks():
    has = CpuidAnswers(source=lambda function, subfunction: (0xFFFF_FFFF,) * 4)
    lacks = CpuidAnswers(source=lambda function, subfunction: (0, 0, 1 << 26, 1 << 6))
    for answers in (has, lacks):
        ask_about_cr4(answers)
        answers.detach()
    for bits in (CR4.PKS, CR4.PCIDE):
        save = Machine(cr4=CR4.PAE | bits, cr3=PML4 | 5).save
        assert list(refused_state(save, has, 40)) == []
    (told,) = refused_state(save, lacks, 40)
    assert told == (
        "CR4 is 0x20020, and the guest's CPU lacks PCIDE (CPUID function 0x1, ECX bit 17): a real processor raises "
        "#GP(0) at a MOV to CR4 that sets it, and one with PCIDE where CR3[11:0] is not zero: it is 0x5."
    )
    save.cr3 = PML4
    assert next(refused_state(save, lacks, 40)).endswith("that sets it.")


LEGACY = {"efer": 0, "cr0": CR0.PE, "cr4": 0, "cs.attributes": 0xC9B, "cs.limit": 0xFFFF_FFFF, "ss.limit": 0xFFFF_FFFF}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, None),
        ({"cr0": CR0.PE | CR0.PG | CR0.NW}, "with NW set and CD clear"),
        ({"cr0": CR0.PG | CR0.WP}, "with PG, paging, set and PE, protected mode, clear"),
        ({"cr4": CR4.OSFXSR}, "CR4 is 0x200: .* at a MOV to CR4 that clears PAE in long mode"),
        ({"cr3": 1 << 40 | PML4}, "beyond 40 bits"),
        ({"cr4": CR4.PAE | 1 << 15}, "bit 15 is reserved: a real processor raises #GP.0. at a MOV to CR4"),
        ({"lstar": 1 << 47}, "LSTAR is 0x800000000000, not a canonical address"),
        ({"gs.base": 1 << 63}, "the base of GS is 0x8000000000000000, not a"),
        ({"kernel_gs_base": 0xFFFF_8000_0000_0000}, None),
        (LEGACY, None),
        (
            LEGACY | {"rip": 0x10_0000, "cs.limit": 0xF_FFFF, "cs.attributes": 0x49B},
            "0xfffff .G, granularity, is clear",
        ),
        (
            LEGACY | {"rsp": 0x2_0000, "ss.limit": 0xFFFF},
            "The stack is at offset 0x20000, beyond the limit of SS, 0xffff",
        ),
        (LEGACY | {"rsp": 0x1_0000, "ss.limit": 0xFFFF}, None),
        (LEGACY | {"rsp": 0x2_0000, "ss.limit": 0xFFFF, "ss.attributes": 0xC97}, None),
        (LEGACY | {"rsp": 0x2_0000, "ss.limit": 0xFFFF, "ss.attributes": 0x93}, None),
    ],
)
def test_a_state_that_a_real_processor_does_not_come_to(fields, told):
    found = list(refused_state(Machine(**fields).save, CpuidAnswers(), 40))
    assert len(found) == (told is not None)
    assert told is None or re.search(told, found[0])


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
