"""A guest that ends in the task of its #DF is told so, with what led there, on both processors."""

import re
import struct

import pytest

from tests.explain.broken import GDT, SPARE, kernel, qword
from trapline.api import run
from trapline.arch import encode
from trapline.arch.descriptors import Attribute, GateType, SystemType
from trapline.arch.vectors import Vector
from trapline.asm.operands import AX, DS, EAX
from trapline.guests.samples import places
from trapline.guests.samples.tables import Gate
from trapline.report.result import Ending
from trapline.report.text import in_handler, report

TSS, HANDLER = places.LAZY_PAGES, places.LAZY_PAGES + 0x800
HALTS, EXITS = b"\xfa\xf4\xeb\xfc", b"\xb0\x00\xe6\xf4\xfa\xf4"
"""cli; hlt, again and again. Or exit with 0."""


def image(handler, stack=places.DATA_SELECTOR):
    """Return a kernel whose #GP has no handler, and whose #DF is a task of its own."""
    task = bytearray(encode.tss(SystemType.TSS_32, [(places.DATA_SELECTOR, places.STACK)]))
    struct.pack_into("<II", task, 0x20, HANDLER, 2)
    struct.pack_into("<I", task, 0x38, places.INTERRUPT_STACK)
    struct.pack_into("<IIII", task, 0x48, *(places.DATA_SELECTOR, places.CODE_SELECTOR), stack, places.DATA_SELECTOR)
    descriptor = encode.descriptor(TSS, len(task) - 1, Attribute.P | SystemType.TSS_32)
    gate = encode.gate(SPARE, 0, GateType.TASK)
    return kernel(
        32,
        raises=lambda made: (made.code.mov(EAX, places.NO_SELECTOR), made.code.mov(DS, AX)),
        prepare=lambda made: made.gates.update({Vector.GP: Gate(0, present=False)}),
        patches=[
            (GDT + SPARE, qword(descriptor)),
            (places.IDT + 8 * Vector.DF, qword(gate)),
            (TSS, task),
            (HANDLER, handler),
        ],
    )()


@pytest.mark.parametrize(
    ("processor", "handler", "ending", "code"),
    [
        ("unicorn", HALTS, Ending.HALTED, 5),
        ("unicorn", EXITS, Ending.DEBUG_EXIT, 0),
        pytest.param("qemu", HALTS, Ending.HALTED, 5, marks=[pytest.mark.qemu, pytest.mark.slow]),
        pytest.param("qemu", EXITS, Ending.DEBUG_EXIT, 0, marks=[pytest.mark.qemu, pytest.mark.slow]),
    ],
)
def test_the_task_of_a_double_fault(processor, handler, ending, code, tmp_path):
    guest = tmp_path / "guest"
    guest.write_bytes(image(handler))
    done = run(guest, processor=processor, timeout=60)
    assert (done.ending, [each.record.vector for each in done.unreturned], done.exit_code) == (
        ending,
        [Vector.DF],
        code,
    )
    assert in_handler(done).endswith("in its handler of #DF")
    told = " ".join("\n".join(report(done)).split())
    assert "mov uses the selector 0x1000" in told
    assert re.search(
        r"delivering #GP\(0x1000\): IDT entry 13 is not present -> #NP\(0x6[ab]\) -> #DF", told
    )  # EXT or not
    assert f"delivering #DF: IDT entry 8 is a task gate: the task of TSS {SPARE:#x} starts" in told


@pytest.mark.parametrize("processor", ["unicorn", pytest.param("qemu", marks=[pytest.mark.qemu, pytest.mark.slow])])
def test_a_task_that_cannot_begin(processor, tmp_path):
    guest = tmp_path / "guest"
    guest.write_bytes(image(HALTS, stack=places.CODE_SELECTOR))
    done = run(guest, processor=processor, timeout=60)
    assert done.ending is Ending.SHUTDOWN
    first, *_, last = done.explanation.causes
    assert "IDT entry 13" in first
    assert re.search(
        rf"the task of TSS {SPARE:#x}, which the task gate of #DF starts, cannot begin: #TS\(0x[89]\)", last
    )
    assert (done.unreturned, done.warnings) == ((), ())
