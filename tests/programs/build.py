#!/usr/bin/env python3
"""Builds the guests of the acceptance tests: raw disk images from nasm sources.

As a program: ``build.py`` lists the variants, ``build.py NAME OUT`` builds one,
``build.py all DIR`` builds every one as ``DIR/NAME.img``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent

SECTOR: Final = 512
IMAGE_SIZE: Final = 1 << 20
"""Every image is padded to this size, so that any firmware accepts the disk."""


class BuildError(Exception):
    """A guest could not be built; the text says why and what to do."""


@dataclass(frozen=True)
class Variant:
    """One guest: its source, the nasm defines that select it, and its purpose."""

    source: str
    about: str
    defines: dict[str, str] = field(default_factory=dict)
    shuts_down: bool = False
    """The guest ends by a shutdown instead of a write to the exit port."""
    reboots: bool = False
    """The guest resets the machine on its way: leave out -no-reboot."""


def _shutdown(way: int, about: str) -> Variant:
    return Variant("shutdown.asm", about, {"WAY": str(way)}, shuts_down=True)


VARIANTS: Final[dict[str, Variant]] = {
    "long": Variant("long.asm", "the fault matrix in long mode, debugging, interrupts, MSRs"),
    "long_quirks": Variant(
        "long.asm",
        "`long`, plus an interrupt shadow that QEMU 7.2 does not restore",
        {"QUIRKS": "1"},
    ),
    "long_refused": Variant(
        "long.asm",
        "some of `long`, plus guest states that VMRUN refuses to enter",
        {"SHORT": "1", "REFUSED": "1"},
    ),
    "long_reserved": Variant(
        "long.asm",
        "some of `long`, plus reserved bits of CR3 and CR4: hangs QEMU 7.2 without a monitor",
        {"SHORT": "1", "RESERVED_CR": "1"},
    ),
    "shutdown0": _shutdown(0, "long mode: UD2 with an IDT limit of 0"),
    "shutdown1": _shutdown(1, "long mode: page fault with neither stack nor IDT mapped"),
    "shutdown2": _shutdown(2, "long mode: UD2, with the gates of #UD, #NP and #DF broken"),
    "shutdown3": _shutdown(3, "protected mode: INT3 without an IDT"),
    "shutdown4": _shutdown(4, "real mode: INT3 with an IVT limit of 0"),
    "shutdown5": _shutdown(5, "long mode: the stack overflows into an unmapped page"),
    "pm32": Variant("prot.asm", "the fault matrix in 32-bit protected and v8086 mode", {"WIDTH_BITS": "32"}),
    "pm32_refused": Variant(
        "prot.asm",
        "some of `pm32`, plus paging with EFER.LME but without PAE, which VMRUN refuses to enter",
        {"WIDTH_BITS": "32", "REFUSED": "1"},
    ),
    "pm32_rom": Variant(
        "prot.asm",
        "`pm32`, plus a sum over the BIOS below 4 GiB: needs nested paging to be equal",
        {"WIDTH_BITS": "32", "ROM": "1"},
    ),
    "pm16": Variant("prot.asm", "the fault matrix in 16-bit protected mode", {"WIDTH_BITS": "16"}),
    "real": Variant("real.asm", "the fault matrix in real and unreal mode, A20 open and closed"),
    "count": Variant("count.asm", "a known number of each exception, and the guest's count"),
    "hostile": Variant("hostile.asm", "attacks a monitor: memory, SVM, ports, PCI, a flood of #UD"),
    "poke": Variant("poke.asm", "writes to a place in physical memory", {"PLACE": "0x8000000000"}),
    "random": Variant("random.asm", "writes at random over memory, ports and by fw_cfg DMA, for ever"),
    "ports": Variant("ports.asm", "accesses to the ports by which a monitor may be reached"),
    "reset": Variant("reset.asm", "four resets and what survives them; run without -no-reboot", reboots=True),
    "sleep": Variant("sleep.asm", "sleeps twice in S3, and goes on when the RTC wakes the machine"),
    "smm": Variant("smm.asm", "SMIs, and a handler of its own that raises exceptions in SMM"),
    "scan": Variant("scan.asm", "every MSR, CPUID leaf and I/O port that may tell machines apart"),
    "cpuid": Variant("cpuid.asm", "what CPUID tells; no SVM may be found"),
    "udloop": Variant("loops.asm", "benchmark: N times #UD in long mode", {"UDLOOP": "1"}),
    "pfloop": Variant("loops.asm", "benchmark: N times #PF in long mode", {"PFLOOP": "1"}),
    "intloop": Variant("loops.asm", "benchmark: N times INT 41h in long mode", {"INTLOOP": "1"}),
    "gploop": Variant("loops.asm", "benchmark: N times #GP with code 0 in long mode", {"GPLOOP": "1"}),
}


def build(name: str, out: Path, **defines: int) -> Path:
    """Build the variant ``name`` as the raw disk image ``out``; return ``out``.

    A map of its labels goes into ``out`` with the suffix ``.map``: see ``labels``.
    Further nasm defines go in as keywords: ``build("udloop", out, N=1000)``.
    """
    variant = VARIANTS.get(name)
    if variant is None:
        raise BuildError(f"no guest named {name!r}; there are {', '.join(VARIANTS)}")
    nasm = shutil.which("nasm")
    if nasm is None:
        raise BuildError("nasm is not installed (Debian: apt-get install nasm)")
    options = {**variant.defines, **{key: str(value) for key, value in defines.items()}}
    command = [nasm, "-f", "bin", "-w+error=number-overflow", "-I", f"{HERE}/", "-o", str(out)]
    command += [f"-D{key}={value}" for key, value in options.items()]
    command += ["--before", f"[map symbols {out.with_suffix('.map')}]", str(HERE / variant.source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"nasm refuses {variant.source}:\n{done.stderr.rstrip()}")
    size = out.stat().st_size
    limit = SECTOR * (1 + _load_sectors())
    if size > limit:
        raise BuildError(f"{name} has {size} bytes, the boot sector loads only {limit}")
    with out.open("r+b") as image:
        image.truncate(IMAGE_SIZE)
    return out


def labels(image: Path) -> dict[str, int]:
    """Return the addresses of the labels of an image that was built."""
    text = image.with_suffix(".map").read_text(encoding="ascii")
    rows = re.findall(r"^ *([0-9A-F]+) +[0-9A-F]+  (\S+)$", text, re.MULTILINE)
    return {name: int(address, 16) for address, name in rows}


def _load_sectors() -> int:
    """How many sectors behind itself the boot sector loads."""
    text = (HERE / "inc" / "boot.inc").read_text(encoding="ascii")
    found = re.search(r"^LOAD_SECTORS\s+equ\s+(\d+)", text, re.MULTILINE)
    if found is None:
        raise BuildError("inc/boot.inc does not define LOAD_SECTORS")
    return int(found.group(1))


def main(arguments: list[str]) -> int:
    """List the variants, or build one or all of them."""
    if not arguments:
        for name, variant in VARIANTS.items():
            print(f"{name:12} {variant.about}")
        return 0
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    name, target = arguments[0], Path(arguments[1])
    try:
        if name == "all":
            target.mkdir(parents=True, exist_ok=True)
            for each in VARIANTS:
                build(each, target / f"{each}.img")
        else:
            build(name, target)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
