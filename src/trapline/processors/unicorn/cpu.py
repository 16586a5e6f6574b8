"""What a CPU does with an event: intercept it, or deliver it (APM 15.7.3, 15.12)."""

import contextlib
from typing import Final

from trapline.arch.bits import M32
from trapline.arch.delivery import Failed, apply, checks, deliver, switch
from trapline.arch.emulation import finish_instruction
from trapline.arch.events import ERROR_CODE_VALID, SHUTDOWN, Event, EventType, combine, decode, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.layout import gatherer, offset_of, size_of
from trapline.arch.registers import CR0, Gprs
from trapline.arch.vectors import WITH_ERROR_CODE, Vector
from trapline.arch.vmcb import SaveArea, Vmcb
from trapline.errors import FaultError
from trapline.machine.linear import next_rip

from .delivery_cache import DeliveryCache, ReadTracker
from .memory import Ram
from .stops import EXIT, RESUME, Next

_EXCEPTIONS: Final = EXCEPTION_EXITS.start
_EXCEPTION: Final = encode(Event(0, EventType.EXCEPTION))
"""The EVENTINJ word of an exception, but for its vector and error code."""

_EXIT, _EXIT_AT = gatherer(
    Vmcb, [f"control.{name}" for name in ("exit_code", "exit_info_1", "exit_info_2", "exit_int_info")]
)
assert _EXIT.size == 32, "four fields side by side: a gap would be cleared"


_SAVE_AT: Final = offset_of(Vmcb, "save")


def exception_word(vector: int, code: int) -> int:
    """Return the EVENTINJ word of an exception; `code` counts where the vector has an error code."""
    word = _EXCEPTION | vector
    return word | ERROR_CODE_VALID | code << 32 if WITH_ERROR_CODE >> vector & 1 else word


class Cpu:
    """Events of one CPU. Each method returns whether the guest resumes or the VMCB holds a #VMEXIT."""

    def __init__(self, vmcb: Vmcb, gprs: Gprs, ram: Ram, *, physical_bits: int, sets_rf: bool) -> None:
        self._vmcb, self._gprs = vmcb, gprs
        self._bytes = memoryview(vmcb).cast("B")
        self._control, self._save = vmcb.control, vmcb.save
        self._ram = ram
        self.physical_bits = physical_bits
        self._sets_rf = sets_rf
        self.halted = False
        """HLT was executed, and no event has come since."""
        self._halted_rip = 0
        self.generation: int | None = None
        """The generation of the state in the VMCB; None: it was changed since."""
        self._cache = DeliveryCache(ram, vmcb)

    def halt(self, rip: int) -> None:
        """Wait for an event; `rip` is that after the HLT."""
        self.halted, self._halted_rip = True, rip

    def wake_moved(self) -> None:
        """End a HLT from which somebody has moved RIP away while the guest was stopped."""
        if self._save.rip != self._halted_rip:
            self.halted = False

    def exit(self, code: int, info_1: int = 0, info_2: int = 0, *, vectoring: Event | None = None) -> Next:
        """Write the exit; nRIP is zero but for what the manual lists (APM 15.7.1)."""
        word = encode(vectoring) if vectoring is not None else 0
        if word & ERROR_CODE_VALID and not self._save.cr0 & CR0.PE:
            word = word & M32 & ~ERROR_CODE_VALID  # real mode pushes none
        _EXIT.pack_into(self._bytes, _EXIT_AT, code, info_1, info_2, word)
        self._control.nrip = 0
        return EXIT

    def exit_at_instruction(self, code: int, length: int, info_1: int = 0) -> Next:
        """Write the exit of an instruction that is `length` bytes long, with the RIP after it."""
        self.exit(code, info_1)
        self._control.nrip = next_rip(self._save, length)
        return EXIT

    def raise_exception(self, vector: int, code: int = 0, address: int | None = None) -> Next:
        """Raise an exception of the instruction at RIP."""
        if self._control.intercept_exceptions >> vector & 1:
            return self.exit(_EXCEPTIONS + vector, code, address or 0)
        if address is not None:
            self._save.cr2 = address
        return self.deliver_exception(exception_word(vector, code))

    def deliver_exception(self, word: int) -> Next:
        """Start the handler of an exception, given as the EVENTINJ word, or of what its delivery raises."""
        if self.redeliver(word):
            return RESUME
        event = decode(word)
        assert event is not None, "the word of an exception is valid"
        return self.deliver(event, None)

    def raise_software(self, vector: int, length: int) -> Next:
        """Raise #BP or #OF for the INT3 or INTO at RIP."""
        if self._control.intercept_exceptions >> vector & 1:
            return self.exit_at_instruction(_EXCEPTIONS + vector, length)
        return self.deliver(Event(vector, EventType.EXCEPTION), next_rip(self._save, length))

    def redeliver(self, word: int) -> bool:
        """Start the handler of an event, given as the EVENTINJ word, if it started from this state before.

        False: nothing happened. Never for INT n, INT3 and INTO.
        """
        generation = self.generation
        if generation is None:
            return False
        known = self._cache.replay(generation, word)
        if known is None:
            return False
        self.halted = False
        self._control.interrupt_shadow = 0
        if known.switches:
            self.generation = None
        return True

    def deliver(self, event: Event, after: int | None) -> Next:
        """Start the handler of an event, or of what its delivery raises; `after` is RIP after INT n, INT3 and INTO."""
        control, save = self._control, self._save
        self.halted = False
        generation, self.generation = self.generation, None
        while True:
            result = self._start_handler(event, after, generation)
            if result is None:
                control.interrupt_shadow = 0
                return RESUME
            generation = None
            follows = result.event
            assert follows is not None, "a task gate switches tasks"
            if control.intercept_exceptions >> follows.vector & 1:
                return self.exit(
                    _EXCEPTIONS + follows.vector, follows.error_code or 0, result.address or 0, vectoring=event
                )
            if result.address is not None:
                save.cr2 = result.address
            combined = combine(event, follows)
            if combined is SHUTDOWN:
                return self.exit(ExitCode.SHUTDOWN, vectoring=event)
            if combined.vector == Vector.DF != follows.vector and control.intercept_exceptions >> Vector.DF & 1:
                return self.exit(_EXCEPTIONS + Vector.DF, vectoring=event)
            event, after = combined, None

    def _start_handler(self, event: Event, after: int | None, generation: int | None) -> Failed | None:
        """Change state and memory as the delivery of one event does; return the failure, if it fails."""
        save = self._save
        tracker = ReadTracker(self._ram)
        result = deliver(save, event, tracker, next_rip=after, physical_bits=self.physical_bits, sets_rf=self._sets_rf)
        for gpa, data in result.writes:
            self._store(gpa, data)
        if isinstance(result, Failed):
            return self._switch_task(event, after, result) if result.check is checks.TASK_GATE else result
        if generation is not None and after is None:
            self._cache.remember(generation, encode(event), result, tracker)
        apply(save, result)
        return None

    def _switch_task(self, event: Event, after: int | None, gate: Failed) -> Failed | None:
        """Change state and memory as the task switch of an event does; return the failure, if it fails."""
        result = switch(
            self._save,
            self._gprs,
            event,
            self._ram,
            gate.details["task"],
            next_rip=after,
            physical_bits=self.physical_bits,
            sets_rf=self._sets_rf,
        )
        for gpa, data in result.writes:
            self._store(gpa, data)
        if isinstance(result, Failed):
            return result
        self._bytes[_SAVE_AT : _SAVE_AT + size_of(SaveArea)] = memoryview(result.save).cast("B")
        memoryview(self._gprs).cast("B")[:] = memoryview(result.gprs).cast("B")
        return result.failed

    def skip(self, length: int) -> Next:
        """Finish an instruction of `length` bytes that was executed here."""
        self._save.rip = next_rip(self._save, length)
        return self.finish()

    def finish(self) -> Next:
        """Finish an instruction that was executed here, RIP included: RF and the interrupt shadow end, TF traps."""
        return self.raise_exception(Vector.DB) if finish_instruction(self._control, self._save) else RESUME

    def _store(self, gpa: int, data: bytes) -> None:
        with contextlib.suppress(FaultError):  # no memory there: the write is lost
            self._ram.write(gpa, data)
