"""QEMU as a processor: answers the monitor's doorbell and drains its ring."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from trapline.arch.events import ERROR_CODE_VALID, VALID, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.layout import offset_of, zero
from trapline.arch.registers import EFER, RFLAGS, Gprs
from trapline.arch.vectors import VECTORS, WITH_ERROR_CODE, Kind, Vector, bits
from trapline.arch.vmcb import Vmcb
from trapline.errors import ProcessorError, ProcessorLost
from trapline.machine.processor import Capabilities, Outcome, Statistics
from trapline.machine.record import RecordFlags

from . import nested
from .firmware import Firmware
from .guard import ConfigGuard
from .hostmem import ProcessMemory
from .machine import Machine
from .qmp import Qmp
from .ram import Ram
from .shared import (
    BASE,
    IOPM_AT,
    MAILBOX_AT,
    MSRPM_AT,
    RECORD_SIZE,
    RING_RECORDS,
    TOKEN_AT,
    Command,
    Mailbox,
    Policy,
    Shared,
    Turn,
)
from .tcg import Tcg
from .version import check_version

_ALWAYS_ASKED: Final = 1 << Vector.BP | 1 << Vector.OF | 1 << Vector.DF
"""Vectors that the monitor leaves to Python: their RIP or their error code needs a look."""

_SPIN: Final = 2000
"""How often to look at the mailbox before sleeping: some 100 us, longer than a guest's next exit often takes."""
_SHADOW_END: Final = 0x10_0000
_BUSY_POLL: Final = 0.02
_IDLE_POLL: Final = 0.1
"""Seconds to sleep at most between two looks at the ring; the monitor rings when it is half full."""


class QemuProcessor:
    """A QEMU machine whose CPU executes VMRUN for us. Implements `machine.Processor`."""

    def __init__(
        self,
        machine: Machine,
        firmware: Firmware,
        block: ProcessMemory,
        ram: Ram,
        *,
        accelerator: str,
        isolated: bool,
    ) -> None:
        self._machine = machine
        self._firmware = firmware
        self._isolated = isolated
        self._shared = Shared(machine.monitor)
        self._mailbox = self._shared.mailbox
        turn = MAILBOX_AT + offset_of(Mailbox, "turn")
        self._words = machine.monitor[turn : turn + 4].cast("I")
        self._quirks = Tcg(self._shared, ram) if accelerator == "tcg" else None
        self.vmcb: Vmcb = self._shared.vmcb
        self.gprs: Gprs = self._shared.gprs
        self.msrpm = self._shared.msrpm
        self._block = block
        self.memory = ram
        self.exit_status: int | None = None
        self.capabilities = Capabilities(
            name=f"QEMU ({accelerator})",
            ts_error_code=accelerator == "tcg",
            hides_svm=accelerator == "tcg",
            keeps_svme=accelerator == "tcg",
            physical_bits=40,
            forwards_set_rf=accelerator != "tcg",
        )
        self._guard = ConfigGuard(self._shared)
        self._sink: Callable[[memoryview], None] = lambda records: None
        self._tail = 0
        self._running = True  # until the firmware has reported the first time
        self._exits = 0
        self._stopped = 0
        self._stopped_at = time.perf_counter_ns()
        self._begun = False
        self._fresh = False
        self._kicked = False
        self._alarm_read, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        for descriptor in (machine.doorbell.fileno(), self._alarm_read):
            self._poll.register(descriptor, select.POLLIN)
        self._qmp = Qmp(machine.qmp)

    @property
    def signature(self) -> int:
        """EDX as RESET left it."""
        return self._mailbox.signature

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`."""
        return self._mailbox.tsc

    @property
    def statistics(self) -> Statistics:
        """See `machine.Processor.statistics`."""
        return Statistics(self._exits, self._stopped / 1e9)

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._sink = sink

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`: writes the monitor's plan for each vector."""
        control = self.vmcb.control
        if self._quirks is None:
            self._mailbox.intercepts, silent = control.intercept_exceptions, 0
        else:
            silent = self._quirks.intercepts_changed() | 0xFFFF_FFFF & ~control.intercept_exceptions
        self._guard.watch()
        for row in VECTORS:
            plan = self._shared.plans[row.vector]
            has_code = WITH_ERROR_CODE >> row.vector & 1
            plan.event = VALID | EventType.EXCEPTION << 8 | has_code * ERROR_CODE_VALID | row.vector
            plan.arm = self._quirks.arm_for(row.vector) if self._quirks else 0
            plan.rflags = RFLAGS.RF if self.capabilities.forwards_set_rf and row.kind is Kind.FAULT else 0
            plan.flags = RecordFlags.FORWARDED | has_code * RecordFlags.HAS_ERROR_CODE
            plan.flags |= RecordFlags.HAS_ADDRESS if row.vector == Vector.PF else 0
            plan.policy = Policy.ASK
        for vector in bits(silent & ~_ALWAYS_ASKED):
            self._shared.plans[vector].policy = Policy.FORWARD
        for vector in bits(forwarded & ~_ALWAYS_ASKED):
            self._shared.plans[vector].policy = Policy.RECORD

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        if not self._running:
            if self._kicked:
                self._kicked = False
                return Outcome.KICKED
            if self._fresh and not self._isolated:
                self._start_at_bios()
            self._fresh = False
            if self._quirks is not None:
                self._quirks.before_entry()
            self._enter()
        while True:
            outcome: Outcome | None = self._wait(deadline)
            if outcome is Outcome.VMEXIT:
                outcome = self._sort_exit()
            if outcome is not None:
                return outcome
            self._enter()

    def _sort_exit(self) -> Outcome | None:
        """Say what the monitor's turn ended with; None: it is answered, and the guest is to go on."""
        if self._mailbox.reset:
            return self._begin()
        control = self.vmcb.control
        if control.exit_code == ExitCode.IOIO and not self._guarded():
            return None
        if self._quirks is not None and not self._quirks.after_exit():
            return None
        if control.exit_code != ExitCode.NMI:
            return Outcome.VMEXIT
        self._absorb_nmi()
        control.event_inj = 0
        if not self._kicked:
            return None
        self._kicked = False
        self._running = False
        return Outcome.KICKED

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See `machine.Processor.cpuid`."""
        gprs = self.gprs
        kept = gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx
        gprs.rax, gprs.rcx = leaf, subleaf
        self._call(Command.CPUID)
        answer = gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx
        gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx = kept
        return answer

    def kick(self) -> None:
        """See `machine.Processor.kick`: an NMI that the monitor takes makes the guest leave."""
        self._kicked = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._alarm, b"k")

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self._give_turn(Command.SHUTDOWN)

    def close(self) -> None:
        """End QEMU and give the memory back."""
        self._qmp.close()
        self._machine.close()
        self._block.close()
        if self._alarm_read >= 0:
            os.close(self._alarm_read)
            os.close(self._alarm)
            self._alarm_read = self._alarm = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self) -> None:
        if self._quirks is not None:
            self._quirks.entering()
        self._give_turn(Command.LOAD_AND_RESUME)

    def _give_turn(self, command: Command) -> None:
        self._mailbox.command = command
        self._running = True
        self._stopped += time.perf_counter_ns() - self._stopped_at
        self._words[0] = Turn.MONITOR

    def _take_turn(self) -> Outcome:
        self._stopped_at = time.perf_counter_ns()
        self._running = False
        self._exits += 1
        if self._mailbox.ring_head != self._tail:
            self.drain()
        return Outcome.VMEXIT

    def _wait(self, deadline: float | None) -> Outcome:
        """Wait for the monitor's turn to end, and take records meanwhile."""
        words, mailbox = self._words, self._mailbox
        mailbox.attended = 1
        for _ in range(_SPIN if self._begun else 0):
            if words[0]:
                return self._take_turn()
        poll = _BUSY_POLL
        while True:
            mailbox.attended = 0
            if not words[0]:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self.drain()
                    return Outcome.DEADLINE
                self._sleep(poll if left is None else min(poll, left))
            poll = _BUSY_POLL if self.drain() else _IDLE_POLL
            if words[0]:
                return self._take_turn()
            if self._machine.process.poll() is not None:
                return self._ended()

    def _sleep(self, seconds: float) -> None:
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor == self._alarm_read:
                os.read(descriptor, 64)
                if self._kicked:
                    self._send_nmi()
            elif not self._hush():
                self._machine.wait()

    def _hush(self) -> bool:
        """Take what the doorbell said; False: QEMU hung up."""
        try:
            return bool(self._machine.doorbell.recv(4096))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def drain(self) -> int:
        """Give all new records to the sink; returns how many there were."""
        head = self._mailbox.ring_head
        new = head - self._tail
        ring = self._shared.ring
        while self._tail < head:
            start = self._tail % RING_RECORDS
            count = min(head - self._tail, RING_RECORDS - start)
            self._sink(ring[start * RECORD_SIZE : (start + count) * RECORD_SIZE])
            self._tail += count
            self._mailbox.ring_tail = self._tail
        return new

    def _begin(self) -> Outcome:
        """The machine was switched on or reset: put everything of ours in order."""
        version = None if self._begun else self._qmp.version()
        if version is not None:
            check_version(version)
        if not self._mailbox.efer & EFER.SVME:
            raise ProcessorError("this QEMU's CPU does not enable SVM; QEMU 7.2 is known to work")
        self._mailbox.reset = 0
        self._mailbox.open_shadow = 0
        self._restore_bios()
        control = self.vmcb.control
        zero(control)
        control.msrpm_base_pa = BASE + MSRPM_AT
        control.iopm_base_pa = BASE + IOPM_AT
        control.asid = 1
        if self._isolated:
            nested.build(self._machine.monitor, self._firmware)
            control.np_control, control.ncr3 = 1, nested.ROOT
        self._guard.reset()
        self._fresh = self._begun = True
        return Outcome.RESET

    def _restore_bios(self) -> None:
        """Put the BIOS in RAM at the first power-on; afterwards only where it was copied with our bytes in it.

        The machine keeps its shadow RAM over a reset, and what the guest wrote there with it.
        """
        bios, memory, mailbox = self._firmware.bios, self.memory, self._mailbox
        start = _SHADOW_END - len(bios)
        if mailbox.token:
            token = mailbox.token.to_bytes(8, "little")
            self._block.locate(TOKEN_AT, token)
            memory.write(TOKEN_AT, bytes(len(token)))
            memory.write(start, bios)
            mailbox.token = 0
            return
        for offset, ours in self._firmware.patches:
            gpa = start + offset
            if memory.read(gpa, len(ours)) == ours:
                memory.write(gpa, bios[offset : offset + len(ours)])

    def _start_at_bios(self) -> None:
        """Without nested paging the reset vector is ours: start where the BIOS's own first jump leads."""
        cs, save = self.vmcb.save.cs, self.vmcb.save
        if self._firmware.start is None:
            cs.base = cs.selector << 4  # the same code in the shadow RAM below 1 MiB
            return
        cs.selector, save.rip = self._firmware.start
        cs.base = cs.selector << 4

    def _guarded(self) -> bool:
        """Answer a guarded port; False: the guest can go on."""
        trapped = self._guard.answer()
        if self._guard.output is not None:
            self.gprs.rax = self._guard.output
            self._call(Command.OUT)
        return trapped

    def _absorb_nmi(self) -> None:
        assert self._quirks is not None, "only TCG's NMI exits come here"
        self._quirks.foreign_nmis = 0
        self._call(Command.ABSORB_NMI)

    def _send_nmi(self) -> None:
        if self._quirks is not None:  # elsewhere NMIs are the guest's alone: the next exit will have to do
            self._quirks.foreign_nmis = 1
            self._qmp.command("inject-nmi")

    def _call(self, command: Command) -> None:
        """Let the monitor do something at once and wait until it has."""
        self._give_turn(command)
        while not self._words[0]:
            if self._machine.process.poll() is not None:
                raise ProcessorLost("QEMU ended while the guest was stopped")
        self._take_turn()

    def _ended(self) -> Outcome:
        """QEMU is gone: tell how."""
        self.drain()
        status = self._machine.process.returncode
        if not self._begun:
            raise self._machine.launch_error()
        if status < 0:
            raise ProcessorLost(f"QEMU was killed by {signal.Signals(-status).name}")
        if status == 1 and not any("isa-debug-exit" in word for word in self._machine.command):
            raise ProcessorLost(f"QEMU failed: {self._machine.errors() or 'it said nothing'}")
        self.exit_status = status or None
        return Outcome.OFF
