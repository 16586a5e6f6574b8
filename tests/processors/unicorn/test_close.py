"""What `close` frees, and that it frees nothing that is in use."""

import gc
import threading
from pathlib import Path

import pytest

from trapline.api import Machine
from trapline.errors import FaultError, UsageError
from trapline.hypervisor.stop import StopReason
from trapline.machine.boot import Boot
from trapline.machine.processor import Outcome
from trapline.processors.unicorn.processor import UnicornProcessor

NOTHING = Boot("nothing", "nothing", [], lambda save, gprs: None)
FOR_EVER = b"\xba\xf8\x03\x00\x00\xb0\x0a\xee\xeb\xfd"
"""mov edx, 0x3f8; mov al, 10; again: out dx, al; jmp again."""


def address_space():
    """Return the size of this process's address space in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmSize")).split()[1]) >> 10


def test_machines_are_freed_without_a_garbage_collection():
    with Machine("sample:ud") as m:  # loads what is loaded once
        m.run(timeout=60)
    gc.collect()
    gc.disable()
    try:
        before = address_space()
        for _ in range(12):
            with Machine("sample:ud", exceptions="all", memory="256M") as m:
                assert m.run(timeout=60).reason is StopReason.OFF
        assert address_space() - before < 600  # a machine takes twice that
    finally:
        gc.enable()


def test_what_is_closed_cannot_be_used():
    processor = UnicornProcessor(NOTHING, 1 << 20, output=print)
    processor.run(None)
    processor.close()
    processor.close()
    with pytest.raises(FaultError):
        processor.memory.read(0, 1)
    with pytest.raises(FaultError):
        processor.memory.write(0, b"1")
    for call in (
        lambda: processor.cpuid(0, 0),
        lambda: processor.set_breakpoints(frozenset({0})),
        lambda: processor.set_watchpoints(()),
    ):
        with pytest.raises(UsageError, match="the machine is closed"):
            call()
    processor.kick()
    processor.receive(b"1")
    assert processor.run(None) is Outcome.OFF
    assert processor.vmcb.save.rip == 0
    assert processor.gprs.rcx == 0


def test_a_machine_may_be_closed_by_what_it_calls():
    with Machine(FOR_EVER, entry_mode=32, console=lambda data: m.close()) as m:
        assert m.run(timeout=60).reason is StopReason.OFF


def test_a_machine_may_be_closed_by_another_thread():
    said = threading.Event()
    with Machine(FOR_EVER, entry_mode=32, console=lambda data: said.set()) as m:
        closer = threading.Thread(target=lambda: said.wait(60) and m.close())
        closer.start()
        assert m.run(timeout=60).reason is StopReason.OFF
        closer.join()


def test_the_state_of_a_closed_machine_is_gone():
    with Machine("sample:no-idt", exceptions="all") as m:
        stop = m.run(timeout=60)
        assert stop.reason is StopReason.SHUTDOWN
        assert stop.crash.code
    for ask in (lambda: stop.crash, m.result):
        with pytest.raises(UsageError, match="the machine is closed"):
            ask()
