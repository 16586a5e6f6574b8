"""One #UD under QEMU that an observer in Python decides on, and a round trip between two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from tests.programs import build
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.hypervisor.exception import InterceptedException, Verdict
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.vcpu import Vcpu
from trapline.hypervisor.vm import Vm
from trapline.processors.qemu.launch import open_qemu
from trapline.trace.recorder import Recorder

from .figures import Table
from .loops import EXIT_DEVICE
from .measure import in_turn, timed

TIMES: Final = 100_000
_ECHO: Final = """
import os, sys
there, back, times = map(int, sys.argv[1:])
for _ in range(times):
    os.eventfd_read(there)
    os.eventfd_write(back, 1)
"""


class _Watcher:
    vectors = 1 << Vector.UD

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Verdict:
        return Verdict.FORWARD


def decision(rounds: int, scratch: Path) -> dict[str, Table]:
    """#UD decided by an observer in Python, and the round trip of an eventfd between two processes."""
    image = build.build("udloop", scratch / "decision.img", N=TIMES)
    found = in_turn(
        {
            "nothing forced": partial(timed, lambda: _run(image, watched=False)),
            "decided": partial(timed, lambda: _run(image, watched=True)),
            "eventfd": partial(timed, lambda: round_trips(TIMES)),
        },
        rounds,
    )
    title = f"{TIMES:,} times #UD decided by an observer in Python"
    return {"decision": Table(title, found, ("eventfd",), TIMES, {"decided": "nothing forced", "eventfd": None})}


def _run(image: Path, *, watched: bool) -> float:
    with open_qemu(
        guest=["-drive", f"file={image},format=raw"],
        memory=128 << 20,
        options=EXIT_DEVICE,
        serial=["-serial", "null"],
    ) as processor:
        recorder = Recorder()
        processor.on_records(recorder.add)
        vm = Vm(processor, mask=FORCEABLE if watched else 0, recorders=(Recording(recorder.add_one),))
        if watched:
            vm.observers.add(_Watcher())
        start = time.perf_counter()
        vm.run()
        return time.perf_counter() - start


def round_trips(times: int) -> float:
    """Return the seconds in which an eventfd wakes another process and is answered by a second one, so many times."""
    there, back = os.eventfd(0), os.eventfd(0)
    command = [sys.executable, "-I", "-S", "-c", _ECHO, *map(str, (there, back, times + 1))]
    try:
        with subprocess.Popen(command, pass_fds=(there, back)):
            os.eventfd_write(there, 1)  # until it has started
            os.eventfd_read(back)
            start = time.perf_counter()
            for _ in range(times):
                os.eventfd_write(there, 1)
                os.eventfd_read(back)
            return time.perf_counter() - start
    finally:
        os.close(there)
        os.close(back)
