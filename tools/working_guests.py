"""Stop software that works again and again while it runs, and say of what it would be accused: it must be of nothing.

    python -m tools.working_guests [--every 0.3] [--seconds 60] [NAME ...]

The software is Debian's kernel, Memtest86+, iPXE, GRUB and the BIOS, as `tools.testguests` gets it, on QEMU.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import trapline
from trapline.errors import ProcessorError
from trapline.hypervisor.stop import StopReason
from trapline.session.ending import Moment
from trapline.session.run import HANDLING
from trapline.session.session import Session
from trapline.session.settings import QEMU

from . import testguests


class Guest(NamedTuple):
    """Software, with the options that it is run with."""

    path: Callable[[], Path | None]
    initrd: Callable[[], Path] | None = None
    append: str | None = None
    qemu: tuple[str, ...] = ()


_PC: Final = ("-nodefaults", "-vga", "std", "-display", "none")
GUESTS: Final = {
    "linux": Guest(testguests.linux_kernel, testguests.linux_initrd, "console=ttyS0 quiet panic=-1"),
    "memtest": Guest(testguests.memtest, append="nosmp nopause"),
    "ipxe": Guest(testguests.ipxe_iso, qemu=("-netdev", "user,id=net", "-device", "e1000,netdev=net,romfile=")),
    "grub-disk": Guest(testguests.grub_disk),
    "grub-iso": Guest(testguests.grub_iso),
    "bios": Guest(lambda: None),
}


def accusations(moment: Moment, session: Session) -> Iterator[str]:
    """Yield what would be told of a guest that is stopped here."""
    for each in moment.unreturned:
        yield f"record {each.record.seq}, {each.record.vector.name}: {each.explanation}"
    yield from moment.findings
    yield from session.explainer.warnings()
    yield from session.explainer.unexplained


def watch(guest: Guest, every: float, seconds: float, processor: str = QEMU) -> Iterator[tuple[float, str]]:
    """Run a guest, stop it at random times, and yield each accusation with its time."""
    rng, started = random.Random(1), time.monotonic()
    initrd = None if guest.initrd is None else guest.initrd()
    with trapline.Machine(
        guest.path(),
        exceptions="all",
        processor=processor,
        initrd=initrd,
        append=guest.append,
        qemu_options=(*_PC, *guest.qemu) if processor == QEMU else (),
    ) as machine:
        while time.monotonic() < started + seconds:
            try:
                stop = machine.run(timeout=rng.uniform(0.1, 2) * every)
            except ProcessorError:
                continue  # it takes no NMI at the moment
            if stop.reason is not StopReason.TIMEOUT:
                return
            before = machine.session.explainer.unreturned()
            if before and machine.run(timeout=HANDLING).reason is not StopReason.TIMEOUT:
                return
            moment = machine.session.moment(before)
            for accusation in (
                machine.session.explainer.warnings() if moment is None else accusations(moment, machine.session)
            ):
                yield time.monotonic() - started, accusation


def main() -> None:
    """Watch the guests that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.working_guests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=float, default=0.3, help="seconds between two stops, on average")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("names", nargs="*", choices=[*GUESTS, []], metavar="NAME")
    options = parser.parse_args()
    told = 0
    for name in options.names or GUESTS:
        for at, accusation in watch(GUESTS[name], options.every, options.seconds):
            told += 1
            print(f"{name}, {at:.1f} s: {accusation}", flush=True)
        print(f"{name}: done", flush=True)
    sys.exit(bool(told))


if __name__ == "__main__":
    main()
