"""Measure what forcing exceptions costs, against plain QEMU and QEMU -d int in the same run."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.programs import build
from tools import testguests
from tools.initramfs import linux_initramfs

from .measure import in_turn, medians, print_costs, run

TRAPLINE = [sys.executable, "-m", "trapline", "run"]
QEMU = ["qemu-system-x86_64", "-cpu", "qemu64,-svm", "-display", "none", "-no-reboot", "-serial", "stdio"]
EXIT_DEVICE = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
KERNEL_LINE = "console=ttyS0 quiet panic=-1"
LOOPS = 500_000

# To a shell script that starts some processes, and off again.
BOOT_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for i in $(seq 100); do (exit 0); /bin/busybox true; done
echo up
poweroff -f
"""


def boot(rounds: int, scratch: Path) -> None:
    """Debian's kernel to a shell script and off."""
    kernel = str(testguests.linux_kernel())
    busybox = next(testguests.package("busybox-static").glob("bin/busybox"))
    initrd = scratch / "boot.cpio"
    initrd.write_bytes(linux_initramfs(busybox.read_bytes(), BOOT_INIT))
    plain = [*QEMU, "-m", "256M", "-kernel", kernel, "-initrd", str(initrd), "-append", KERNEL_LINE]
    ours = [*TRAPLINE, kernel, "--initrd", str(initrd), "--append", KERNEL_LINE, "-e"]
    log = scratch / "int.log"
    costs = in_turn(
        {
            "plain QEMU": lambda: run(plain),
            "none": lambda: run([*ours, "none"]),
            "all,!pf": lambda: run([*ours, "all,!pf"]),
            "all": lambda: run([*ours, "all"]),
            "none, isolated": lambda: run([*ours, "none", "--isolate"]),
            "all, isolated": lambda: run([*ours, "all", "--isolate"]),
            "QEMU -d int": lambda: run([*plain, "-d", "int", "-D", str(log)]),
        },
        rounds,
    )
    summary = json.loads(subprocess.run([*ours, "all", "--json"], capture_output=True, check=False).stdout)
    notes = {"all": f"{summary['recorded']:,} recorded", "QEMU -d int": f"{log.stat().st_size:,} bytes"}
    print_costs("Linux to a shell script and off", costs, against=("plain QEMU", "QEMU -d int"), notes=notes)


WITHOUT_BLACK_BOX = """
import sys
import trapline.explain.blackbox
from trapline.cli.main import main
if sys.argv.pop(1) == "without":
    trapline.explain.blackbox.BlackBox.__call__ = lambda *_: None
sys.exit(main())
"""


def black_box(rounds: int, scratch: Path) -> None:
    """A boot full of page faults, with the black box and without."""
    busybox = next(testguests.package("busybox-static").glob("bin/busybox"))
    initrd = scratch / "faults.cpio"
    initrd.write_bytes(linux_initramfs(busybox.read_bytes(), BOOT_INIT.replace(b"seq 100", b"seq 400")))
    guest = [str(testguests.linux_kernel()), "--initrd", str(initrd), "--append", KERNEL_LINE, "-e", "all"]
    costs = in_turn(
        {
            which: lambda which=which: run([sys.executable, "-c", WITHOUT_BLACK_BOX, which, "run", *guest])
            for which in ("without", "with")
        },
        rounds,
    )
    print_costs("Linux with some 40,000 page faults, the black box", costs, against=("without",))


def loops(rounds: int, scratch: Path) -> None:
    """One exception in a long-mode loop."""
    for name in ("udloop", "pfloop"):
        image = build.build(name, scratch / f"{name}.img", N=LOOPS)
        drive = ["-m", "128M", "-drive", f"file={image},format=raw", *EXIT_DEVICE]
        ours = [*TRAPLINE, str(image), "--memory", "128M", "-e"]
        log = scratch / "int.log"
        costs = in_turn(
            {
                "plain QEMU": lambda plain=drive: run([*QEMU, *plain]),
                "QEMU -d int": lambda plain=drive, log=log: run([*QEMU, *plain, "-d", "int", "-D", str(log)]),
                "none": lambda ours=ours: run([*ours, "none", "--", *EXIT_DEVICE]),
                "all": lambda ours=ours: run([*ours, "all", "--", *EXIT_DEVICE]),
            },
            rounds,
        )
        middle = medians(costs)
        logged = (middle["QEMU -d int"] - middle["plain QEMU"]) / LOOPS * 1e6
        recorded = (middle["all"] - middle["none"]) / LOOPS * 1e6
        print_costs(f"{LOOPS:,} times #{name[:2].upper()} in a long-mode loop", costs, against=("QEMU -d int",))
        print(f"  one exception: {recorded:.1f} us recorded, {logged:.1f} us with -d int: {recorded / logged:.2f} x")
        log.unlink(missing_ok=True)


def python(rounds: int, scratch: Path) -> None:
    """One #UD that an observer decides on."""
    from trapline.arch.vectors import FORCEABLE, Vector
    from trapline.hypervisor.exception import InterceptedException, Verdict
    from trapline.hypervisor.recording import Recording
    from trapline.hypervisor.vcpu import Vcpu
    from trapline.hypervisor.vm import Vm
    from trapline.processors.qemu.launch import open_qemu
    from trapline.trace.recorder import Recorder

    class Watcher:
        vectors = 1 << Vector.UD

        def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Verdict:
            return Verdict.FORWARD

    count = 100_000
    image = build.build("udloop", scratch / "python.img", N=count)

    def once(*, watched: bool) -> float:
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
                vm.observers.add(Watcher())
            start = time.perf_counter()
            vm.run()
            return time.perf_counter() - start

    costs = in_turn({"nothing forced": lambda: once(watched=False), "decided": lambda: once(watched=True)}, rounds)
    middle = medians(costs)
    print_costs(f"{count:,} times #UD decided by an observer in Python", costs, against=())
    print(f"  one exception: {(middle['decided'] - middle['nothing forced']) / count * 1e6:.1f} us")


def ring(rounds: int, scratch: Path) -> None:
    """Records a second from the ring to counts."""
    from trapline.machine.record import RECORD_SIZE
    from trapline.processors.qemu.damage import Damage
    from trapline.processors.qemu.layout import RING_RECORDS, SIZE, SharedMemory
    from trapline.processors.qemu.ring import Ring
    from trapline.trace.recorder import Recorder

    shared = SharedMemory(memoryview(bytearray(SIZE)))
    for number in range(RING_RECORDS):
        shared.ring[number * RECORD_SIZE + 8] = (14, 14, 14, 13, 6, 0)[number % 6]
    times, batches = 200, 64
    batch = RING_RECORDS // batches

    def once() -> float:
        shared.mailbox.ring_head = 0
        taken, recorder = Ring(shared, Damage(shared, isolated=False, q35=False)), Recorder()
        taken.sink = recorder.add
        start = time.perf_counter()
        for _ in range(times * batches):
            shared.mailbox.ring_head += batch
            taken.drain()
        assert recorder.tally.total == times * RING_RECORDS
        return time.perf_counter() - start

    rates = [times * RING_RECORDS / once() for _ in range(rounds)]
    print(f"\nfrom the ring to counts, {RING_RECORDS // batches} records at a time")
    print(f"  {statistics.median(rates):,.0f} records a second (from {min(rates):,.0f} to {max(rates):,.0f})")


def in_process(rounds: int, scratch: Path) -> None:
    """One #UD on Unicorn, and a guest without any."""
    from .in_process import in_process

    in_process(rounds)


def traces(rounds: int, scratch: Path) -> None:
    """Questions to a stored trace, once each."""
    from .traces import traces

    traces(scratch)


def gdb(rounds: int, scratch: Path) -> None:
    """What gdb costs."""
    from .gdb import gdb

    gdb(rounds, scratch)


def recording(rounds: int, scratch: Path) -> None:
    """Recording to files."""
    from .recording import recording

    recording(scratch)
    recorded_boots(rounds, scratch)


def recorded_boots(rounds: int, scratch: Path) -> None:
    """Recording Linux to files."""
    from .recording import boots

    kernel, initrd = str(testguests.linux_kernel()), scratch / "boot.cpio"
    busybox = next(testguests.package("busybox-static").glob("bin/busybox"))
    initrd.write_bytes(linux_initramfs(busybox.read_bytes(), BOOT_INIT))
    plain = [*QEMU, "-m", "256M", "-kernel", kernel, "-initrd", str(initrd), "-append", KERNEL_LINE]
    boots([*TRAPLINE, kernel, "--initrd", str(initrd), "--append", KERNEL_LINE], plain, scratch, rounds)


BENCHMARKS = {
    "boot": boot,
    "black-box": black_box,
    "loops": loops,
    "python": python,
    "ring": ring,
    "in-process": in_process,
    "gdb": gdb,
    "recording": recording,
    "traces": traces,
}


def main() -> int:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    if shutil.which("qemu-system-x86_64") is None:
        print("qemu-system-x86_64 is not on PATH: run make setup", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.names or BENCHMARKS:
            BENCHMARKS[name](options.rounds, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
