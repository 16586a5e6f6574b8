import pytest

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea
from trapline.machine.processor import Watchpoint
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.unfinished import is_unfinished

AT, NOT_THERE = 0x4008, 0x3000
W, R = Watchpoint(0x8000, 4, False), Watchpoint(0x8000, 4, True)
NOP = "90" * 8
INC, LOCK_INC = "ff0500800000", "f0ff0500800000"
LOAD = "8b0500800000"


@pytest.fixture
def unfinished():
    """Return a function that asks about 32-bit code at AT, with other code right before it."""

    def unfinished(code, *, before=NOP, hit=W, entered=NOT_THERE, **values):
        save, gprs, memory = SaveArea(), Gprs(), ScriptedMemory(0x1_0000)
        save.cs.attributes = 1 << 10
        save.rip = AT
        for name, value in values.items():
            setattr(gprs, name, value)
        memory.write(AT - len(before) // 2, bytes.fromhex(before + code))
        return is_unfinished(save, gprs, memory, hit, entered)

    return unfinished


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (LOCK_INC, True),
        ("871d00800000", True),  # XCHG
        ("f00fb10e", True),  # LOCK CMPXCHG [ESI], ECX
        ("f0ff05fe7f0000", True),  # the second half of it is watched
        (INC, False),  # not one that QEMU executes twice
        ("f0ff0504800000", False),  # another place
        ("90", False),
    ],
)
def test_only_an_instruction_with_lock_is(unfinished, code, expected):
    assert unfinished(code, rsi=0x8000) == expected


@pytest.mark.parametrize("before", [INC, LOCK_INC, "8916", "a300800000"])
def test_of_two_accesses_in_a_row_the_first_ends_where_the_cpu_was_not_entered(unfinished, before):
    assert not unfinished(LOCK_INC, before=NOP + before, rsi=0x8000)
    assert unfinished(LOCK_INC, before=NOP + before, rsi=0x8000, entered=AT)


def test_a_read_before_counts_where_reads_are_watched(unfinished):
    assert unfinished(LOCK_INC, before=NOP + LOAD)
    assert not unfinished(LOCK_INC, before=NOP + LOAD, hit=R)


def test_what_has_changed_its_own_address_may_have_accessed_anything(unfinished):
    assert not unfinished(LOCK_INC, before=NOP + "8b36", hit=R)  # MOV ESI, [ESI]
    assert not unfinished(LOCK_INC, before=NOP + "50")  # PUSH EAX


def test_code_that_is_not_mapped_accesses_nothing():
    save = SaveArea()
    save.cs.attributes, save.rip = 1 << 10, 0x20_0000
    assert not is_unfinished(save, Gprs(), ScriptedMemory(0x1_0000), W, NOT_THERE)
