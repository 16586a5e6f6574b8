"""A guest that writes over the memory of the monitor ends its own run: in time, with a sentence, and nothing worse.

The machine is a thread that plays the monitor (`scripted_qemu`); there is no QEMU.
"""

import contextlib
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processors.qemu.scripted_qemu import leave, power_on
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.layout import offset_of
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.arch.vmcb import Vmcb
from trapline.errors import MonitorDamaged, ProcessorLost, TraplineError
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.processor import Outcome
from trapline.machine.record import RECORD_SIZE
from trapline.processors.qemu import handover
from trapline.processors.qemu.damage import Damage
from trapline.processors.qemu.layout import CODE_AT, MAILBOX_AT, RING_AT, VMCB_AT, Mailbox
from trapline.trace.recorder import Recorder

SECONDS = 0.3
UD = leave(exception_exit(Vector.UD))


def mailbox(**fields):
    """A step that writes fields of the mailbox, as a guest may that has found them."""

    def step(qemu):
        UD(qemu)
        for name, value in fields.items():
            setattr(qemu.shared.mailbox, name, value)

    return step


def vm_of(processor):
    vm = Vm(processor, mask=FORCEABLE)
    recorder = Recorder()
    processor.on_records(recorder.add)
    return vm, recorder


def invalid(**control):
    """A step that leaves with INVALID, after fields of the control area were written."""

    def step(qemu):
        leave(ExitCode.INVALID)(qemu)
        for name, value in control.items():
            setattr(qemu.shared.vmcb.control, name, value)

    return step


def test_a_state_that_vmrun_refuses_is_not_damage(start):
    processor, _ = start(power_on, UD, invalid())
    vm, _ = vm_of(processor)
    assert vm.run(time.monotonic() + 10).reason is StopReason.FAILED


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (invalid(msrpm_base_pa=0), "its VMCB was written over"),
        (mailbox(ring_head=1 << 40), "the head of its ring was written over"),
        (mailbox(ring_head=(1 << 64) - 1), "the head of its ring was written over"),
        (leave(0x1234), "its VMCB has the exit code 0x1234, which no CPU writes"),
        (leave(1 << 63), "its VMCB has the exit code 0x8000000000000000"),
    ],
)
@pytest.mark.parametrize("isolated", [False, True])
def test_what_no_monitor_writes_ends_the_run(start, step, what, isolated):
    processor, _ = start(power_on, UD, step, isolated=isolated)
    vm, _ = vm_of(processor)
    with pytest.raises(MonitorDamaged) as caught:
        vm.run(time.monotonic() + 10)
    assert what in str(caught.value)
    assert ("--isolate keeps" if isolated else "use --isolate") in str(caught.value)


def test_a_mailbox_that_belongs_to_nobody(start):
    processor, qemu = start(power_on, UD)
    processor.run(None)
    processor.intercepts_changed(0)
    qemu._closed.set()
    qemu._thread.join(10)
    qemu.shared.mailbox.owner = 7
    processor._handshake.running = True
    with pytest.raises(MonitorDamaged, match="its mailbox belongs to 0x7"):
        processor.run(time.monotonic() + 10)


def silent(qemu):
    """The monitor hangs."""
    qemu._closed.wait(20)


@pytest.mark.parametrize(("at", "what"), [(CODE_AT, "its code was written over"), (None, None)])
def test_a_monitor_that_hangs_ends_with_the_time(start, at, what):
    processor, qemu = start(power_on, silent)
    begin = time.monotonic()
    processor.run(None)
    processor.intercepts_changed(0)
    if at is not None:
        qemu.shared.memory[at] ^= 0xFF
    if what is None:
        assert processor.run(begin + SECONDS) is Outcome.DEADLINE
    else:
        with pytest.raises(MonitorDamaged, match=what):
            processor.run(begin + SECONDS)
    assert SECONDS <= time.monotonic() - begin < SECONDS + 5
    qemu._closed.set()


def test_a_monitor_that_waits_for_room_in_its_ring(start):
    def step(qemu):
        qemu.shared.mailbox.ring_tail = 99
        silent(qemu)

    processor, qemu = start(power_on, step)
    processor.run(None)
    processor.intercepts_changed(0)
    with pytest.raises(MonitorDamaged, match="the tail of its ring was written over"):
        processor.run(time.monotonic() + SECONDS)
    qemu._closed.set()


def test_a_command_that_is_never_answered_ends_with_the_time(start, monkeypatch):
    monkeypatch.setattr(handover, "_ANSWER", 0.1)
    processor, qemu = start(power_on, UD)
    processor.run(time.monotonic() + SECONDS)
    qemu._closed.set()
    qemu._thread.join(10)
    begin = time.monotonic()
    with pytest.raises(ProcessorLost, match="did not answer before the time was up"):
        processor.cpuid(0, 0)
    assert time.monotonic() - begin < SECONDS + 5


def test_a_device_that_was_taken_away(shared):
    damage = Damage(shared, isolated=False, q35=True, mapped=lambda address: False)
    assert damage.why_silent() is None  # the firmware may not have come to it
    damage.keep()
    assert damage.why_silent() == "its device was taken away"
    shared.memory[CODE_AT] ^= 1
    assert damage.why_silent() == "its code was written over"


WRITES = st.one_of(
    st.tuples(st.integers(MAILBOX_AT, MAILBOX_AT + 0x400), st.binary(min_size=1, max_size=16)),
    st.tuples(st.integers(VMCB_AT, VMCB_AT + 0x680), st.binary(min_size=1, max_size=16)),
    st.tuples(st.integers(0, 1000).map(lambda at: RING_AT + at), st.binary(min_size=1, max_size=64)),
    st.tuples(
        st.sampled_from(
            [
                *(MAILBOX_AT + offset_of(Mailbox, name) for name in ("ring_head", "reset", "placing", "owner")),
                VMCB_AT + offset_of(Vmcb, "control.exit_code"),
                VMCB_AT + offset_of(Vmcb, "control.exit_int_info"),
            ]
        ),
        st.integers(0, 8 * RECORD_SIZE).map(lambda value: value.to_bytes(8, "little")),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(WRITES, min_size=1, max_size=3), min_size=1, max_size=4), st.booleans())
def test_whatever_the_guest_writes_there(start, rounds, isolated):
    """It may deceive us, but ends with a stop, a record or an error of trapline's own, not later than its time."""

    def overwriting(writes):
        def step(qemu):
            UD(qemu)
            for at, data in writes:
                qemu.shared.memory[at : at + len(data)] = data

        return step

    processor, qemu = start(power_on, UD, *map(overwriting, rounds), isolated=isolated)
    vm, recorder = vm_of(processor)
    begin = time.monotonic()
    with contextlib.suppress(TraplineError):
        assert vm.run(begin + SECONDS).reason in StopReason
    recorder.tally.rows()
    assert len(recorder.exceptions().columns) == len([str(record) for record in recorder.exceptions()])
    assert time.monotonic() - begin < SECONDS + 5
    processor.close()
    qemu.shared.memory[:RING_AT] = bytes(RING_AT)
