"""The model against a real machine: QEMU's TCG delivers the same event from the same state."""

import contextlib
import os
import random
import shutil
import signal
import time

import pytest

from tests.arch.delivery.states import ARENA, HLT, LOW_MEMORY, MODES, RAM, SIZE, make
from tests.processors.qemu.tcg_departures import (
    DEPARTURES,
    expect,
    mended,
    push_as_supervisor,
    registers_of,
    without_pdpt_accessed,
)
from trapline.arch.events import VALID, encode
from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.layout import offset_of, size_of
from trapline.arch.registers import CR4, RFLAGS
from trapline.arch.vmcb import SaveArea, Vmcb
from trapline.machine.processor import Outcome
from trapline.processors.qemu.launch import open_qemu
from trapline.processors.qemu.layout import VMCB_AT

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

CASES, BATCH = 2_000, 100
AT_CPL_3 = "protected16 20"
"""A case whose handler runs at CPL 3, with a stack of the supervisor."""
_SAVE_AT = VMCB_AT + offset_of(Vmcb, "save")
_INTERCEPTS = (ExitCode.HLT, ExitCode.VMRUN, ExitCode.SHUTDOWN, ExitCode.INTR, ExitCode.NMI)
_MASK_INTERRUPTS = 1 << 24


class Unmended:
    """The corrections of a processor that corrects nothing."""

    wants_interrupts = False

    def before_entry(self):
        pass

    def entering(self):
        pass

    def after_exit(self):
        return True


class Machine:
    """QEMU's CPU without any mending: what VMRUN does with an event is seen as it is."""

    def __init__(self):
        self._processor = processor = open_qemu(guest=["-nodefaults"], options=["-cpu", "max"], memory=RAM)
        assert processor.run(time.monotonic() + 30) is Outcome.RESET
        control = self._control = processor.vmcb.control
        control.intercept_exceptions = 0xFFFF_FFFF
        for intercept in _INTERCEPTS:
            set_intercept(control, intercept)
        control.int_ctl = _MASK_INTERRUPTS
        processor.intercepts_changed(0)
        processor._quirks, processor._machine.power_on._in_firmware = Unmended(), False
        self._shared = processor._shared.memory
        self.facts = processor._machine.power_on._facts
        self.refresh()
        delivered, *_ = self.deliver(make("protected16", random.Random(AT_CPL_3)))
        self.pushes_as_user = not delivered

    def refresh(self):
        """Fill low memory with HLT."""
        self._processor.memory.write(0, bytes((HLT,)) * LOW_MEMORY)

    def close(self):
        self._processor.close()

    @contextlib.contextmanager
    def paused(self):
        """Hold QEMU: its CPU waits for the host in a loop, and takes a processor that the host can use."""
        process = self._processor._machine.qemu.process
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)

    def deliver(self, world):
        """Inject the event and return whether it was delivered, registers, memory and exit."""
        processor, control = self._processor, self._control
        processor.memory.write(ARENA, bytes(world.data))
        self._shared[_SAVE_AT : _SAVE_AT + size_of(SaveArea)] = bytes(world.save)
        control.event_inj, control.exit_int_info = encode(world.event), 0
        assert processor.run(time.monotonic() + 10) is Outcome.VMEXIT
        exits = control.exit_code, control.exit_info_1, control.exit_info_2 if control.exit_code == 0x4E else 0
        delivered = not control.exit_int_info & VALID
        return delivered, registers_of(processor.vmcb.save), processor.memory.read(ARENA, SIZE), exits


@pytest.fixture(scope="module")
def machine():
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        if not machine.pushes_as_user:
            push_as_supervisor(patch)
        yield machine
    machine.close()


def differences(world, expected, got):
    """Name what differs between a prediction and what was seen."""
    delivered, registers, memory, exits = got
    if delivered is not expected.delivered:
        return [f"delivered {delivered}, exit {exits}, expected {expected.exit}"]
    found = [f"registers {registers} expected {expected.registers}"] if registers != expected.registers else []
    if expected.exit is not None and exits != expected.exit:
        found.append(f"exit {[hex(word) for word in exits]} expected {[hex(word) for word in expected.exit]}")
    memory, wanted = (without_pdpt_accessed(world, image) for image in (memory, expected.memory))
    if memory != wanted:
        places = [place for place in range(SIZE) if memory[place] != wanted[place]]
        found.append(
            "memory " + ", ".join(f"{ARENA + at:#x}: {memory[at]:#x} expected {wanted[at]:#x}" for at in places[:8])
        )
    return found


def starts_in_arena(world, rip, rsp, rflags, cpl, cs, *rest):
    """Say whether the handler's first instruction would be a piece of a table."""
    start = rip if world.long else cs.base + rip
    return ARENA - 16 < start - world.linear < ARENA + SIZE


def cases(machine, mode, numbers, seen):
    """Yield the cases of a mode with their seeds and what is expected."""
    for number in numbers:
        seed = f"{mode} {number}"
        world = make(mode, random.Random(seed))
        if machine.pushes_as_user and world.save.cr4 & CR4.SMAP and world.save.rflags & RFLAGS.AC:
            continue  # newer TCGs do not check the pushes either
        expected = expect(world, seen, machine.facts)
        if expected is not None and expected.delivered and starts_in_arena(world, *expected.registers):
            continue  # tables are no handlers
        yield seed, world, expected


def delivered(machine, batch):
    """Return what is seen of each case."""
    found = []
    for seed, world, expected in batch:
        got = machine.deliver(world)
        assert got[3][0] not in (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF), f"{seed}: VMRUN refuses the state"
        if expected is not None and expected.strays:
            machine.refresh()
        found.append(got)
    return found


def disagreements(machine, mode, seen):
    """Try the cases of a mode, and say what differs from the model; `seen` collects the departures that mattered."""
    wrong = []
    for first in range(0, CASES, BATCH):
        with machine.paused():
            batch = list(cases(machine, mode, range(first, first + BATCH), seen))
        seen_there = delivered(machine, batch)
        with machine.paused():
            for (seed, world, expected), got in zip(batch, seen_there, strict=True):
                if expected is not None and (found := differences(world, expected, got)):
                    wrong.append(f"{seed}: {world.event} {world.mutations} {world.paging}: " + "; ".join(found))
    return wrong


def test_model_and_qemu_agree(machine):
    """But for the departures. One that nothing shows any more is to be struck off the list."""
    seen, wrong = set(), []
    for mode in MODES:
        # Newer TCGs read tables at 32-bit addresses in compatibility mode: cpu_mmu_index_kernel.
        if mode != "compat" or not machine.pushes_as_user:
            wrong += disagreements(machine, mode, seen)
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong[:20])
    unseen = {"RF", "IRQ RF", "error code valid"} | mended(machine.facts, pushes_as_user=machine.pushes_as_user)
    assert set(DEPARTURES) - unseen == seen - unseen
