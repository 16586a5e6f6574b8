import pytest

from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vmcb import SaveArea
from trapline.machine.io_map import misplaced_at_port
from trapline.machine.scripted import ScriptedMemory

TSS = 0x1000


@pytest.mark.parametrize(
    ("base", "fields", "told"),
    [
        (0, {}, True),
        (0x67, {}, True),
        (0x68, {}, False),
        (0, {"cpl": 0}, False),
        (0, {"rflags": 2 | RFLAGS.IOPL}, False),
        (0, {"rflags": 2 | RFLAGS.VM}, False),
        (0, {"type": 3}, False),
        (0, {"at": 0x10_0000}, False),
    ],
)
def test_a_map_that_begins_inside_the_tss(base, fields, told):
    save, memory = SaveArea(), ScriptedMemory(0x2000)
    save.cr0, save.cpl, save.rflags = CR0.PE, fields.get("cpl", 3), fields.get("rflags", 2)
    save.tr.base, save.tr.limit, save.tr.attributes = fields.get("at", TSS), 0xFFFF, 0x80 | fields.get("type", 0xB)
    memory.write(TSS + 0x66, base.to_bytes(2, "little"))
    found = misplaced_at_port(save, memory, 0xF4)
    assert (found is not None) is told
    assert not told or f"port 0xf4, by the I/O map of its TSS: the map base is {base:#x}, inside the TSS" in found
