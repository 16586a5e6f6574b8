"""Real software that must run under trapline as on plain QEMU: how to get it, boot it and read it.

A test boots each twice, once by `run_plain` and once under trapline with `channel_options` added and `watch`
to follow it, and compares the two normalised texts. One QEMU runs at a time.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from tools import efi_guests, testguests
from trapline.errors import ProcessorMissing
from trapline.guests.qemu import in_file, qemu_options
from trapline.guests.recognise import recognise
from trapline.processors.qemu.uefi import find_uefi

QEMU = "qemu-system-x86_64"

# The guest is to see no SVM, with trapline and without. trapline's own options say so to QEMU.
CPU = ("-cpu", "qemu64,-svm")

# No network card and no disk but those asked for; to be given to QEMU in both runs.
PC = ("-nodefaults", "-vga", "std", "-display", "none", "-no-reboot")

_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")
_POLL = 0.1  # seconds


class Channel(Enum):
    """Where the software's words are read."""

    SERIAL = "serial port"
    SCREEN = "VGA text memory"


@dataclass(frozen=True, slots=True)
class Files:
    """What the software is booted from; no guest at all means the machine's own BIOS."""

    guest: Path | None
    initrd: Path | None = None


@dataclass(frozen=True, slots=True)
class Software:
    """One piece of software; when `ends` is false it runs on for ever once `started` has been seen."""

    name: str
    obtain: Callable[[], Files]
    channel: Channel
    started: str
    normalise: Callable[[str], str]
    ends: bool = False
    append: str | None = None
    options: tuple[str, ...] = ()
    timeout: float = 240.0
    memory: str = "256M"
    uefi: bool = False
    """UEFI firmware boots it."""

    def skip_reason(self) -> str | None:
        """Say why it cannot run on this machine, or None when it can."""
        if shutil.which(QEMU) is None:
            return f"{QEMU} is not installed"
        try:
            self.obtain()
            if self.uefi:
                find_uefi()
        except (testguests.Unobtainable, ProcessorMissing) as reason:
            return f"{self.name}: {reason}"
        return None

    def guest_arguments(self) -> list[str]:
        """Return GUEST and its options as trapline's command line takes them; empty for the bare BIOS."""
        files = self.obtain()
        arguments = [str(files.guest)] if files.guest else []
        arguments += ["--initrd", str(files.initrd)] if files.initrd else []
        return arguments + (["--append", self.append] if self.append else []) + (["--uefi"] if self.uefi else [])


@dataclass(frozen=True, slots=True)
class Observation:
    """What a run showed: the raw text, what is left to compare, how long it took, QEMU's exit status."""

    raw: str
    text: str
    seconds: float
    status: int


class NotStarted(AssertionError):
    """The software did not say what it says when it runs; the message ends in what it said instead."""


def channel_options(directory: Path) -> list[str]:
    """Return QEMU's options for both channels, which live in the directory."""
    return [
        *("-serial", f"file:{directory / 'serial.txt'}"),
        *("-chardev", f"socket,id=watch,path={directory / 'watch.qmp'},server=on,wait=off"),
        *("-mon", "chardev=watch,mode=control"),
    ]


def run_plain(software: Software, directory: Path) -> Observation:
    """Run the software on QEMU alone."""
    files = software.obtain()
    with contextlib.ExitStack() as closing:
        boot = firmware(directory) if software.uefi else []
        if files.guest:
            guest = closing.enter_context(in_file(recognise(files.guest)))
            boot += qemu_options(guest, initrd=files.initrd, append=software.append, uefi=software.uefi)
        command = [QEMU, *CPU, "-m", software.memory, *PC, *software.options, *boot, *channel_options(directory)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            return watch(process, software, directory)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def firmware(directory: Path) -> list[str]:
    """Return QEMU's options for UEFI firmware, with a copy of its variables in the directory."""
    found = find_uefi()
    variables = directory / "variables.fd"
    shutil.copyfile(found.variables, variables)
    return [
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={found.code}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
    ]


def watch(
    process: subprocess.Popen[bytes], software: Software, directory: Path, end: Callable[[], object] | None = None
) -> Observation:
    """Follow a run until it ends, or has shown the text that proves it runs; then end it, by QMP's `quit` or `end`."""
    begin = time.monotonic()
    raw = ""
    while True:
        running = process.poll() is None
        raw = _read(software.channel, directory, raw)
        shown = software.started in raw
        if not running or (shown and not software.ends):
            break
        if time.monotonic() - begin > software.timeout:
            process.kill()
            process.wait()
            raise NotStarted(f"{software.name}: nothing for {software.timeout} s but:\n{_ESCAPE.sub('', raw)}")
        time.sleep(_POLL)
    seconds = time.monotonic() - begin
    if not shown:
        output = process.communicate()[0] if process.stdout else b""
        said = _ESCAPE.sub("", raw) + (output or b"").decode(errors="replace")
        raise NotStarted(f"{software.name}: ended with status {process.returncode} and:\n{said}")
    if running and end is not None:
        end()
    elif running:
        _quit(directory)
    status = process.wait(timeout=30)
    return Observation(raw, software.normalise(raw), seconds, status)


def _read(channel: Channel, directory: Path, before: str) -> str:
    if channel is Channel.SERIAL:
        file = directory / "serial.txt"
        return file.read_bytes().decode(errors="replace").replace("\r", "") if file.exists() else ""
    try:
        return _screen(directory)
    except (OSError, ValueError):
        return before  # not up yet, or just gone


def _screen(directory: Path) -> str:
    columns, rows, text_memory = 80, 25, 0xB8000
    file = directory / "screen.bin"
    _qmp(directory, "pmemsave", {"val": text_memory, "size": 2 * columns * rows, "filename": str(file)})
    cells = file.read_bytes()[::2].decode("cp437").replace("\0", " ")
    return "\n".join(cells[at : at + columns].rstrip() for at in range(0, columns * rows, columns))


def _quit(directory: Path) -> None:
    _qmp(directory, "quit", {})


def _qmp(directory: Path, command: str, arguments: dict[str, object]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(directory / "watch.qmp"))
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.readline()  # the greeting
            for name, value in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": value}) + "\n")
                stream.flush()
                answer: dict[str, object] = {}
                while not answer.keys() & {"return", "error"}:
                    answer = json.loads(stream.readline())  # events may come between
                if "error" in answer:
                    raise OSError(f"QMP {name}: {answer['error']}")


def _lines(text: str) -> str:
    stripped = (line.rstrip() for line in _ESCAPE.sub("", text).splitlines())
    return "\n".join(line for line in stripped if line)


def _without_counters(text: str) -> str:
    # The kernel's own counts of page faults vary a little with the timer.
    return _lines(re.sub(r"^(trapline: counters).*$", r"\1", text, flags=re.MULTILINE))


def _without_sums(text: str) -> str:
    return _lines(re.sub(r"^(trapline: cpu \d+).*$", r"\1", text, flags=re.MULTILINE))


def _memtest(text: str) -> str:
    # Times, speeds, patterns and how far it has come differ; versions, sizes, the test and its errors do not.
    stable = (
        r"Memtest86\+ v[\d.]+",
        r"QEMU Virtual CPU version [\d.+]+",
        r"Memory *: *\d+MB",
        r"#\d+ +\[[^\]]*\]",
        r"Errors: +\d+",
    )
    return "\n".join(found.group().rstrip() for each in stable if (found := re.search(each, text)))


def _ipxe(text: str) -> str:
    # Its card's place on the PCI bus depends on the machine's other devices, the dots on how long DHCP
    # took, and what is left of the BIOS's words on how many lines followed.
    text = text[max(text.find("iPXE 1."), 0) :]
    return _lines(re.sub(r"\.\.\.+", "...", re.sub(r" on [0-9a-f:.]+ \(open\)", "", text)))


SEABIOS = Software(
    name="SeaBIOS without a disk",
    obtain=lambda: Files(None),
    channel=Channel.SCREEN,
    started="No bootable device.",
    normalise=_lines,
)
LINUX = Software(
    name="Linux",
    obtain=lambda: Files(testguests.linux_kernel(), testguests.linux_initrd()),
    channel=Channel.SERIAL,
    started="trapline: done",
    normalise=_without_counters,
    ends=True,
    append="console=ttyS0 quiet panic=-1 printk.time=0 no_timer_check",
    timeout=240.0,
)
"""On a busy host its check of the timer fails now and then, under plain QEMU too, and it says so or panics."""
LINUX_TRACING = Software(
    name="Linux tracing its page faults",
    obtain=lambda: Files(testguests.linux_kernel(), testguests.tracing_initrd()),
    channel=Channel.SERIAL,
    started="trapline: done",
    normalise=_lines,
    ends=True,
    append=LINUX.append,
    timeout=240.0,
)
LINUX_ON_FOUR = Software(
    name="Linux on four CPUs",
    obtain=lambda: Files(testguests.linux_kernel(), testguests.smp_initrd()),
    channel=Channel.SERIAL,
    started="trapline: done",
    normalise=_without_sums,
    ends=True,
    append=LINUX.append,
    options=("-smp", "4"),
    timeout=480.0,
)
MEMTEST = Software(
    name="Memtest86+",
    obtain=lambda: Files(testguests.memtest()),
    # It knows the serial port too (console=ttyS0,115200), but repaints that every two seconds only.
    channel=Channel.SCREEN,
    started="#4  [",  # tests 0 to 3 are through, this one takes some seconds
    normalise=_memtest,
    append="nosmp nopause",
    timeout=240.0,
    memory="64M",  # all of it is tested
)
IPXE = Software(
    name="iPXE",
    obtain=lambda: Files(testguests.ipxe_iso()),
    channel=Channel.SCREEN,
    # It has got an address from QEMU's DHCP server by then, and found nothing to boot there.
    started="No bootable device.",
    normalise=_ipxe,
    options=("-netdev", "user,id=net,restrict=on", "-device", "e1000,netdev=net,romfile="),
)
GRUB_DISK = Software(
    name="GRUB from a disk",
    obtain=lambda: Files(testguests.grub_disk()),
    channel=Channel.SERIAL,
    started="trapline: done",
    normalise=_lines,
    ends=True,
)
GRUB_ISO = Software(
    name="GRUB from a CD",
    obtain=lambda: Files(testguests.grub_iso()),
    channel=Channel.SERIAL,
    started="trapline: done",
    normalise=_lines,
    ends=True,
)
GRUB_EFI = Software(
    name="GRUB by UEFI",
    obtain=lambda: Files(efi_guests.grub_efi()),
    channel=Channel.SERIAL,
    started="trapline: done",
    normalise=_lines,
    ends=True,
    uefi=True,
)
UEFI_SHELL = Software(
    name="the UEFI shell",
    obtain=lambda: Files(None),
    channel=Channel.SERIAL,
    started="Shell> ",
    normalise=_lines,
    uefi=True,
)
LINUX_EFI = replace(LINUX, name="Linux by its EFI stub", uefi=True)
LINUX_EFI_ON_FOUR = replace(LINUX_ON_FOUR, name="Linux by its EFI stub on four CPUs", uefi=True)
_NO_DEVICES = "No more network devices"
IPXE_EFI = Software(
    name="iPXE by UEFI",
    obtain=lambda: Files(efi_guests.ipxe_efi()),
    channel=Channel.SERIAL,
    started=_NO_DEVICES,
    normalise=lambda text: _lines(text[: text.find(_NO_DEVICES)]),
    uefi=True,
)
BY_UEFI = (GRUB_EFI, UEFI_SHELL, LINUX_EFI, IPXE_EFI)
ALL = (SEABIOS, LINUX, MEMTEST, IPXE, GRUB_DISK, GRUB_ISO)


def main() -> int:
    """Run each piece of software twice on QEMU alone, and say whether its texts are equal."""
    import tempfile

    status = 0
    for software in (*ALL, *BY_UEFI):
        if reason := software.skip_reason():
            print(f"{software.name}: skipped: {reason}")
            continue
        runs = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as directory:
                runs.append(run_plain(software, Path(directory)))
        same = runs[0].text == runs[1].text
        status |= not same
        verdict = "same" if same else "DIFFERENT"
        print(f"== {software.name}: {verdict}, {' and '.join(f'{run.seconds:.1f} s' for run in runs)}")
        print(runs[0].text)
        for counters in re.findall(r"^trapline: counters .*$", runs[0].raw, flags=re.MULTILINE):
            print(f"({counters})")
    return status


if __name__ == "__main__":
    sys.exit(main())
