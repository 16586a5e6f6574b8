"""The task switch of an event whose gate is a task gate, and what keeps it from happening."""

import struct

import pytest

from trapline.arch import encode
from trapline.arch.descriptors import Attribute, GateType, SystemType
from trapline.arch.events import Event, EventType, decode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import AX, DS, EAX, ECX
from trapline.processors.unicorn.stops import EXIT
from trapline.testing.conformance.modes import (
    BEYOND_GDT,
    CODE,
    CODE_16,
    CODE_32,
    DATA,
    DATA_16,
    DATA_32,
    GDT,
    IDT,
    KERNEL_STACK,
    PAGED_32,
    PROTECTED_32,
    TASK,
    TSS,
    UNMAPPED,
    USER_DATA_32,
)

NEW, STACK, TASK_CODE, ALL = 0x68, 0x9000, 0x5000, 0xFFFF_FFFF
"""The descriptor of the new TSS takes the place of the absent segment."""
BUSY = SystemType.TSS_32 | SystemType.BUSY


@pytest.fixture
def switching(start):
    """Return a function that gives a guest with a task gate for each vector, and fields of the new TSS by offset."""

    def switching(*lines, mode=PROTECTED_32, wide=True, size=None, exceptions=0, **fields):
        guest = start(*lines, mode=mode, exceptions=exceptions)
        write, kind = guest.memory.write, SystemType.TSS_32 if wide else SystemType.TSS_16
        size = (0x68 if wide else 0x2C) if size is None else size
        write(GDT + NEW, encode.descriptor(DATA, size - 1, Attribute.P | kind).to_bytes(8, "little"))
        write(GDT + TASK, encode.descriptor(TSS, 0x67, Attribute.P | BUSY).to_bytes(8, "little"))
        write(TSS + 0x1C, mode.cr3.to_bytes(4, "little"))
        guest.save.tr.attributes |= SystemType.BUSY
        write(IDT, b"".join(struct.pack("<HHHH", 0, NEW, GateType.TASK << 8 | 0x8000, 0) for _ in range(32)))
        known = {"cr3": mode.cr3, "ip": TASK_CODE, "flags": 2, "sp": STACK, "cs": CODE_32, "ss": DATA_32} | fields
        if wide:
            places = {
                "cr3": 0x1C,
                "ip": 0x20,
                "flags": 0x24,
                "sp": 0x38,
                "cs": 0x4C,
                "ss": 0x50,
                "ds": 0x54,
                "ldt": 0x60,
            }
        else:
            places = {"ip": 0xE, "flags": 0x10, "sp": 0x1A, "cs": 0x24, "ss": 0x26, "ds": 0x28, "ldt": 0x2A}
        for name, at in places.items():
            write(DATA + at, known.get(name, 0).to_bytes(4 if wide else 2, "little"))
        write(TASK_CODE, b"\x0f\xa2")
        return guest

    return switching


@pytest.mark.parametrize("mode", [PROTECTED_32, PAGED_32], ids=["flat", "paged"])
def test_the_task_starts_and_returns(switching, mode):
    guest = switching(("mov", ECX, 0x1234), ("ud2",), ("cpuid",), mode=mode)
    guest.memory.write(TASK_CODE, b"\x0f\xa2\x83\x05" + struct.pack("<I", TSS + 0x20) + b"\x02\xcf")  # add, iretd
    assert guest.exit() == ExitCode.CPUID
    save = guest.save
    assert (save.rip, save.rsp, save.cs.selector, save.tr.selector) == (TASK_CODE, STACK, CODE_32, NEW)
    assert (save.tr.base, save.tr.attributes & 0xF, save.rflags, save.cr0 & CR0.TS) == (
        DATA,
        BUSY,
        2 | RFLAGS.NT,
        CR0.TS,
    )
    assert (guest.u32(TSS + 0x20), guest.u32(TSS + 0x2C), guest.u32(DATA)) == (CODE + 5, 0x1234, TASK)
    assert guest.u32(TSS + 0x24) & RFLAGS.RF
    assert guest.u32(TSS + 0x38) == KERNEL_STACK
    save.rip += 2
    assert guest.exit() == ExitCode.CPUID
    assert (save.rip, guest.gprs.rcx, save.rsp, save.tr.selector) == (CODE + 7, 0x1234, KERNEL_STACK, TASK)
    assert not save.rflags & RFLAGS.NT


@pytest.mark.parametrize(("wide", "width"), [(True, 4), (False, 2)])
def test_the_error_code_is_on_the_stack_of_the_task(switching, wide, width):
    guest = switching(("mov", EAX, 0x1000), ("mov", DS, AX), wide=wide, ss=DATA_32 if wide else DATA_16)
    assert guest.exit() == ExitCode.CPUID
    assert (guest.save.rip, guest.save.rsp & 0xFFFF) == (TASK_CODE, STACK - width)
    assert guest.u32(STACK - width) & (1 << 8 * width) - 1 == 0x1000


GP, TS, NP, SS, PF = Vector.GP, Vector.TS, Vector.NP, Vector.SS, Vector.PF
REFUSED = [
    ({"size": 0x67}, TS, NEW, CODE),
    ({"wide": False, "size": 0x2B}, TS, NEW, CODE),
    ({"cs": 0}, TS, 0, TASK_CODE),
    ({"cs": DATA_32}, TS, DATA_32, TASK_CODE),
    ({"cs": CODE_32 | 3}, TS, CODE_32, TASK_CODE),
    ({"cs": BEYOND_GDT}, TS, BEYOND_GDT, TASK_CODE),
    ({"ss": CODE_32}, TS, CODE_32, TASK_CODE),
    ({"ss": USER_DATA_32}, TS, USER_DATA_32 & ~3, TASK_CODE),
    ({"ds": TASK}, TS, TASK, TASK_CODE),
    ({"ldt": DATA_32}, TS, DATA_32, TASK_CODE),
    ({"ldt": 4}, TS, 4, TASK_CODE),
    ({"cs": CODE_16, "ip": 0x1_0000}, GP, 0, 0x1_0000),
    ({"sp": UNMAPPED + 0x100, "mode": PAGED_32, "event": GP}, PF, 2, TASK_CODE),
]


@pytest.mark.parametrize(("planted", "vector", "code", "rip"), REFUSED)
def test_what_is_wrong_with_the_task(switching, planted, vector, code, rip):
    """It belongs to the outgoing task or to the new one; an exception is external to both."""
    event = planted.pop("event", Vector.UD)
    guest = switching(("ud2",), exceptions=1 << vector, **planted)
    sent = Event(event, EventType.EXCEPTION, 0 if event == GP else None)
    assert guest.processor.core.cpu.deliver(sent, None) is EXIT
    control = guest.control
    found = control.exit_code - 0x40, control.exit_info_1, guest.save.rip, decode(control.exit_int_info)
    assert found == (vector, code if vector == PF else code | 1, rip, sent)
    assert guest.save.tr.selector == (TASK if rip == CODE else NEW)


def test_a_segment_that_is_not_present(switching):
    guest = switching(("ud2",), exceptions=1 << NP, ds=DATA_16)
    at = GDT + DATA_16 + 5
    guest.memory.write(at, bytes((guest.memory.read(at, 1)[0] & 0x7F,)))
    assert guest.exit() == 0x40 + NP
    assert guest.control.exit_info_1 == DATA_16 | 1


def test_a_stack_that_is_not_present(switching):
    guest = switching(("ud2",), exceptions=1 << SS, ss=DATA_16)
    at = GDT + DATA_16 + 5
    guest.memory.write(at, bytes((guest.memory.read(at, 1)[0] & 0x7F,)))
    assert guest.exit() == 0x40 + SS


def test_virtual_8086_mode(switching):
    guest = switching(("ud2",), flags=2 | RFLAGS.VM, cs=TASK_CODE >> 4, ip=0, ss=STACK >> 4, sp=0x100)
    assert guest.exit() == ExitCode.CPUID
    save = guest.save
    assert (save.cpl, save.cs.base, save.ss.base, save.rip, save.rsp) == (3, TASK_CODE, STACK, 0, 0x100)


def test_the_tss_is_not_mapped(switching):
    guest = switching(("ud2",), mode=PAGED_32, exceptions=1 << PF)
    guest.save.tr.base = UNMAPPED
    assert guest.exit() == 0x40 + PF
    assert (guest.control.exit_info_2, guest.save.rip, guest.save.tr.selector) == (UNMAPPED + 0x20, CODE, TASK)
