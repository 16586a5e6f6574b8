"""Any exception in the place of any other, on both processors: the guest's handler finds what the model predicts."""

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest

from trapline import DISCARD, Machine, UsageError, Vector, inject
from trapline.arch import delivery
from trapline.arch.delivery import Delivered
from trapline.arch.events import Event, EventType
from trapline.arch.memory import ReaderMemory
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import FORCEABLE, WITH_ERROR_CODE, bits
from trapline.arch.vmcb import SaveArea

IDT, HANDLERS, CODE, STACK = 0x18_0000, 0x18_1000, 0x18_4000, 0x19_0000
"""Where nothing of the sample guest is."""
UNMAPPED, STRANGE = 0x20_0000_0000, 1 << 63
NOT_IN_LONG_MODE = 1 << Vector.OF | 1 << Vector.BR | 1 << Vector.CP
INJECTED = [Vector(vector) for vector in bits(FORCEABLE & ~NOT_IN_LONG_MODE)]


def interrupt_gate(selector, offset):
    return struct.pack("<HHHHQ", offset & 0xFFFF, selector, 0x8E00, offset >> 16 & 0xFFFF, offset >> 32)


class Trigger(NamedTuple):
    """Code that raises an exception, and how the registers are before it."""

    code: bytes
    registers: Mapping[str, int] = MappingProxyType({})


TRIGGERS = {
    Vector.DE: Trigger(b"\xf7\xf0", {"rax": 0, "rdx": 0}),  # div eax
    Vector.DB: Trigger(b"\x90", {"rflags": RFLAGS.TF | 2}),  # nop
    Vector.BP: Trigger(b"\xcc"),
    Vector.UD: Trigger(b"\x0f\x0b"),
    Vector.NM: Trigger(b"\xd9\xd0", {"cr0": CR0.TS}),  # fnop
    Vector.GP: Trigger(b"\x48\x8b\x03", {"rbx": STRANGE}),  # mov rax, [rbx]
    Vector.PF: Trigger(b"\x48\x8b\x03", {"rbx": UNMAPPED}),
}


class Prober:
    """Lets a guest raise one exception after the other, puts another in the place of each, and checks its frame."""

    def __init__(self, machine, combinations):
        self.machine = machine
        self.left = list(combinations)
        self.checked = 0
        self.expected = None
        machine.on()(self.exception)

    def prepare(self, exc):
        """Give the guest an IDT whose handlers raise #UD at once, and code that raises each exception."""
        cpu = exc.cpu
        for vector in range(32):
            cpu.write(IDT + 16 * vector, interrupt_gate(exc.cs, HANDLERS + 0x100 * vector))
            cpu.write(HANDLERS + 0x100 * vector, b"\x0f\x0b")
        for vector, trigger in TRIGGERS.items():
            cpu.write(CODE + 0x100 * vector, trigger.code)
        cpu.registers.idtr.base, cpu.registers.idtr.limit = IDT, 32 * 16 - 1
        self.kept = cpu.registers.cr0, cpu.registers.rflags

    def exception(self, exc):
        """Check the frame in a handler, then let the next exception be raised; or replace what was raised."""
        registers = exc.registers
        if self.expected is not None and HANDLERS <= registers.rip < CODE:
            self.check(exc)
            return self.next(exc)
        if self.checked == 0 and self.expected is None and not CODE <= registers.rip < STACK:
            self.prepare(exc)
            return self.next(exc)
        raised, instead = self.combination
        assert exc.vector is raised
        code = 0x18 if WITH_ERROR_CODE >> instead & 1 and instead is not Vector.DF else None
        address = 0xCAFE000 if instead is Vector.PF else None
        self.expect(exc, instead, code, address)
        return inject(instead, code, address)

    def next(self, exc):
        registers = exc.registers
        if not self.left:
            registers.rip = CODE - 0x100
            exc.cpu.write(CODE - 0x100, b"\xb0\x00\xe6\xf4\xf4")  # mov al, 0; out 0xf4, al; hlt
            return DISCARD
        self.combination = raised, _ = self.left.pop()
        registers.cr0, registers.rflags = self.kept
        registers.rsp, registers.rip, registers.cr2 = STACK, CODE + 0x100 * raised, 0x55
        trigger = TRIGGERS[raised].registers
        for name, value in trigger.items():
            setattr(registers, name, getattr(registers, name) | value if name == "cr0" else value)
        return DISCARD

    def expect(self, exc, instead, code, address):
        """Ask the model what the handler will find."""
        processor = exc.cpu.vcpu.processor
        self.save = save = SaveArea.from_buffer_copy(exc.registers.save)
        # A trap returns to RIP, unless it is the one that was raised.
        nrip = processor.vmcb.control.nrip if instead is exc.vector else save.rip
        event = Event(instead, EventType.EXCEPTION, 0 if instead is Vector.DF else code)
        memory = ReaderMemory(processor.memory.read)
        bits_, sets_rf = processor.capabilities.physical_bits, processor.capabilities.sets_rf
        self.expected = delivery.deliver(save, event, memory, next_rip=nrip, physical_bits=bits_, sets_rf=sets_rf)
        assert isinstance(self.expected, Delivered)
        self.cr2 = save.cr2 if address is None else address

    def check(self, exc):
        """Compare the handler's state and frame with the model's."""
        registers, expected = exc.registers, self.expected
        seen = registers.rip, registers.rsp, registers.rflags & ~RFLAGS.RF, registers.cr2
        assert seen == (expected.rip, expected.rsp, expected.rflags & ~RFLAGS.RF, self.cr2), self.combination
        frame = expected.frame
        size = frame.width * len(frame.values)
        found = struct.unpack(f"<{len(frame.values)}Q", exc.cpu.read(frame.gva, size))
        assert found == frame.values[::-1], self.combination
        self.checked += 1
        self.expected = None


@pytest.mark.parametrize("processor", ["unicorn", "qemu"])
def test_the_handler_finds_what_the_model_predicts(processor):
    combinations = [(raised, instead) for raised in TRIGGERS for instead in INJECTED]
    with Machine("sample:ud", exceptions="all", processor=processor, memory="16M") as machine:
        prober = Prober(machine, combinations)
        machine.run(timeout=120)
        assert prober.checked == len(combinations)
        assert machine.result().exit_value == 0


@pytest.mark.parametrize("processor", ["unicorn", "qemu"])
@pytest.mark.parametrize("vector", [Vector.OF, Vector.BR, Vector.CP])
def test_what_the_guest_cannot_have_is_refused(processor, vector):
    with Machine("sample:ud", exceptions="all", processor=processor, memory="16M") as machine:
        machine.on(Vector.UD)(lambda exc: inject(vector, 0 if vector is Vector.CP else None))
        with pytest.raises(UsageError, match="cannot be injected"):
            machine.run(timeout=30)
