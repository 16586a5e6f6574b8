"""Unicorn as a processor: VMRUN and #VMEXIT by the manual, on a CPU that has only half of them.

Unicorn's core executes guest code and notices what SVM intercepts. It delivers no event, ends no VMRUN, checks no
VMCB; that is done here, with the model of `arch.delivery`.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome

from .one_cpu import OneCpu
from .pc import Pc

_VMEXIT: Final = Outcome.VMEXIT
_OFF: Final = Outcome.OFF


class UnicornProcessor(OneCpu):
    """Implements `machine.Processor` in this process, with a bare machine around the CPU."""

    def __init__(
        self,
        boot: Boot,
        memory: int,
        *,
        output: Callable[[bytes], object],
        debug: Callable[[bytes], object] | None = None,
        sets_rf: bool = True,
    ) -> None:
        """Build the machine; its first `run` answers RESET.

        `memory` is in bytes; `output` gets what the guest writes to COM1, `debug` what it writes to port 0xE9.
        `sets_rf`: the flags that a fault pushes have RF set, as the manual has it and QEMU 7.2 does not.
        """
        pc = Pc(boot, memory, output=output, debug=debug, cpus=1, sets_rf=sets_rf)
        super().__init__(pc, pc.cores[0], sets_rf=sets_rf)
        self._execute, self._window = self.core.loop.run, self.core.window

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        pc = self.pc
        pc.stopped += time.monotonic_ns() - pc.left
        pc.running = True
        try:
            if pc.is_executing:
                outcome = self._execute(deadline)
                if outcome is _OFF:
                    outcome = pc.answer_request()
            else:
                outcome = pc.switch()
        finally:
            pc.running = False
            if pc.closing:
                pc.close()
        self._window.service_requests()
        pc.left = time.monotonic_ns()
        if outcome is _VMEXIT:
            pc.exits += 1
        return outcome

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self._window.kick()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
