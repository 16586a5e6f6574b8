import pytest

from trapline.arch.descriptors import Attribute
from trapline.arch.mode import mode, paging
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vmcb import SaveArea

PE, PG, VM, LMA, L, DB = CR0.PE, CR0.PG, RFLAGS.VM, EFER.LMA, Attribute.L, Attribute.DB


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "rflags", "attributes", "expected"),
    [
        (0, 0, 0, 2, 0, ("real mode", "no paging")),
        (PE, 0, 0, 2, 0, ("protected mode, 16-bit code", "no paging")),
        (PE, CR4.PAE, EFER.LME, 2, DB, ("protected mode, 32-bit code", "no paging")),
        (PE | PG, 0, 0, 2, DB, ("protected mode, 32-bit code", "32-bit paging")),
        (PE | PG, CR4.PAE, 0, VM, 0, ("virtual-8086 mode", "PAE paging")),
        (PE | PG, CR4.PAE, LMA, 2, DB, ("compatibility mode, 32-bit code", "4-level paging")),
        (PE | PG, CR4.PAE, LMA, 2, 0, ("compatibility mode, 16-bit code", "4-level paging")),
        (PE | PG, CR4.PAE | CR4.LA57, LMA, 2, L, ("64-bit mode", "5-level paging")),
    ],
)
def test_the_mode_is_told_by_the_registers(cr0, cr4, efer, rflags, attributes, expected):
    save = SaveArea(cr0=cr0, cr4=cr4, efer=efer, rflags=rflags)
    save.cs.attributes = attributes
    assert (mode(save), paging(save)) == expected
