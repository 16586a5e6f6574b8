"""How a QEMU that ends is understood."""

import time

import pytest

from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome
from trapline.processors.qemu.ending import ended
from trapline.processors.qemu.process import QemuProcess

ABORT = """\
qemu-system-x86_64: warning: TCG doesn't support requested feature
qemu: fatal: invalid tss type

RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
"""
ASSERTION = """\
qemu-system-x86_64: ../system/cpus.c:504: bql_lock_impl: Assertion `!bql_locked()' failed.
"""
TERMINATED = "qemu-system-x86_64: terminating on signal 15 from pid 77 (bash)"


@pytest.mark.parametrize(
    ("returncode", "output", "reason", "words"),
    [
        (-9, "", None, "QEMU was killed by SIGKILL"),
        (-15, "qemu-system-x86_64: terminating on signal 15", None, "QEMU was killed by SIGTERM"),
        (-6, ABORT, None, "QEMU was killed by SIGABRT: qemu: fatal: invalid tss type"),
        (-6, ASSERTION, None, f"QEMU was killed by SIGABRT: {ASSERTION.strip()}"),
        (1, "no such drive", None, "QEMU failed: no such drive"),
        (1, "", None, "QEMU failed: it printed nothing"),
        (1, "", "guest-panic", "QEMU failed: the guest reported that it panicked (pvpanic)"),
        (0, TERMINATED, "host-signal", "QEMU was ended by SIGTERM, which process 77 sent"),
        (0, "qemu: terminating on signal 1", "host-signal", "QEMU was ended by SIGHUP"),
        (0, "", "host-signal", "QEMU was ended by a signal"),
        (0, "", "host-qmp-quit", "QEMU was told to quit, by its monitor"),
        (0, "", "host-ui", "QEMU's window was closed"),
        (0, "", "host-error", "QEMU ended the guest after an error of its own"),
    ],
)
def test_a_qemu_that_the_guest_did_not_end_says_why(returncode, output, reason, words):
    with pytest.raises(ProcessorLost) as caught:
        ended(returncode, lambda: output, by_guest=False, reason=reason)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("returncode", "by_guest", "reason", "status"),
    [
        (0, False, None, None),
        (0, False, "guest-shutdown", None),
        (0, False, "guest-reset", None),
        (1, True, None, 1),
        (0, False, "guest-panic", None),
        (3, False, None, 3),
    ],
)
def test_a_guest_that_ends_the_machine_has_a_status(returncode, by_guest, reason, status):
    end = ended(returncode, lambda: "", by_guest=by_guest, reason=reason)
    assert end.exit_status == status
    assert end.outcome is (Outcome.RESET if reason == "guest-reset" else Outcome.OFF)
    assert bool(end.hints) == (reason == "guest-panic")


def test_the_message_of_an_abort_is_found_before_all_its_registers(tmp_path):
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\n(echo 'qemu: fatal: no way'; seq 1000) >&2\nkill -ABRT $$\n")
    program.chmod(0o755)
    qemu = QemuProcess(lambda descriptors: [str(program)], monitor=4096, firmware=b"x")
    try:
        end = time.monotonic() + 20
        while qemu.process.poll() is None:
            assert time.monotonic() < end
        with pytest.raises(ProcessorLost, match=r"SIGABRT: qemu: fatal: no way$"):
            ended(qemu.process.returncode, qemu.errors, by_guest=False, reason=None)
    finally:
        qemu.close()
