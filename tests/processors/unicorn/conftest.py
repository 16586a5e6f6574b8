import contextlib
import struct
import time

import pytest

from trapline.arch import reset
from trapline.arch.exits import ExitCode, set_intercept
from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.testing.conformance.code import assemble
from trapline.testing.conformance.modes import CODE, IDT, PROTECTED_32, enter, image

MEMORY = 2 << 20
INTERCEPTS = (ExitCode.CPUID, ExitCode.VMRUN, ExitCode.SHUTDOWN)


class Guest:
    """A processor with a guest that is about to execute a listing; CPUID ends it."""

    def __init__(self, processor, labels):
        self.processor, self.labels = processor, labels
        self.save, self.gprs, self.control = processor.vmcb.save, processor.gprs, processor.vmcb.control
        self.memory = processor.memory

    def run(self, seconds=10.0):
        return self.processor.run(None if seconds is None else time.monotonic() + seconds)

    def exit(self, seconds=10.0):
        """Run until an exit and return its code."""
        outcome = self.run(seconds)
        assert outcome is Outcome.VMEXIT, outcome
        return self.control.exit_code

    def u32(self, gpa):
        return struct.unpack("<I", self.memory.read(gpa, 4))[0]

    def handle(self, vector, *lines, at):
        """Let a 32-bit handler take a vector."""
        self.memory.write(at, assemble(32, *lines).blob)
        self.memory.write(IDT + 8 * vector, struct.pack("<H", at))


@pytest.fixture
def start():
    """Return a function that starts a guest in a mode."""
    with contextlib.ExitStack() as closing:

        def start(*lines, mode=PROTECTED_32, cpl=0, exceptions=0, rflags=0, output=lambda data: None, debug=None):
            code = assemble(mode.bits, *lines)

            def load(save, gprs):
                enter(save, mode, cpl, CODE)
                save.rflags |= rflags

            boot = Boot("test", "a test", [(0, image(mode)), (CODE, code.blob)], load)
            processor = closing.enter_context(UnicornProcessor(boot, MEMORY, output=output, debug=debug))
            assert processor.run(None) is Outcome.RESET
            reset.reset(processor.vmcb, processor.gprs, signature=processor.signature)
            load(processor.vmcb.save, processor.gprs)
            control = processor.vmcb.control
            control.intercept_exceptions = exceptions
            for code_ in INTERCEPTS:
                set_intercept(control, code_)
            return Guest(processor, {name: CODE + at for name, at in code.labels.items()})

        yield start
