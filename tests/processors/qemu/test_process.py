"""How a QEMU that ends is understood."""

import time

import pytest

from trapline.errors import ProcessorLost
from trapline.processors.qemu.process import QemuProcess, exit_status

ABORT = """\
qemu-system-x86_64: warning: TCG doesn't support requested feature
qemu: fatal: invalid tss type

RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
"""
ASSERTION = """\
qemu-system-x86_64: ../system/cpus.c:504: bql_lock_impl: Assertion `!bql_locked()' failed.
"""


@pytest.mark.parametrize(
    ("returncode", "output", "words"),
    [
        (-9, "", "QEMU was killed by SIGKILL"),
        (-15, "qemu-system-x86_64: terminating on signal 15", "QEMU was killed by SIGTERM"),
        (-6, ABORT, "QEMU was killed by SIGABRT: qemu: fatal: invalid tss type"),
        (-6, ASSERTION, f"QEMU was killed by SIGABRT: {ASSERTION.strip()}"),
        (1, "no such drive", "QEMU failed: no such drive"),
        (1, "", "QEMU failed: it printed nothing"),
    ],
)
def test_a_qemu_that_the_guest_did_not_end_says_why(returncode, output, words):
    with pytest.raises(ProcessorLost) as caught:
        exit_status(returncode, lambda: output, by_guest=False)
    assert str(caught.value) == words


@pytest.mark.parametrize(("returncode", "by_guest", "status"), [(0, False, None), (1, True, 1), (3, False, 3)])
def test_a_guest_that_ends_the_machine_has_a_status(returncode, by_guest, status):
    assert exit_status(returncode, lambda: "", by_guest=by_guest) == status


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
            exit_status(qemu.process.returncode, qemu.errors, by_guest=False)
    finally:
        qemu.close()
