"""Builds a broken guest, and its twin without the fault, from a seed."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from trapline.asm.assembler import Assembler

from . import faults_code, faults_devices, faults_pages, faults_segments, faults_tables, places
from .handlers import ENDLESS
from .kernel import REAL, WIDE, Kernel
from .planted import FAULTS, Fault, Planted

MODULES: Final = (faults_code, faults_pages, faults_segments, faults_tables, faults_devices)
"""They list their faults."""
Fill: TypeAlias = Callable[[Assembler], None]
_RARE: Final = 0.25
"""How often a style is kept that takes time."""


class Broken(NamedTuple):
    """A guest with a fault."""

    seed: str
    fault: Fault
    mode: str
    style: str
    user: bool
    planted: Planted
    image: bytes
    twin: bytes

    def __str__(self) -> str:
        ring = "CPL 3" if self.user else "CPL 0"
        return f"{self.seed}: {self.fault.name}; {self.mode}, {ring}, the handlers: {self.style}"


def generate(seed: str, faults: Sequence[Fault] = FAULTS) -> Broken:
    """Return the guest of a seed: the same always."""
    rng = random.Random(seed)
    fault = rng.choice(faults)
    mode = rng.choice(fault.modes)
    user = rng.random() < 0.4 if fault.user is None else fault.user
    user = user and mode in WIDE
    style = rng.choice(fault.styles)
    if style in ENDLESS and rng.random() > _RARE:
        style = next((each for each in fault.styles if each not in ENDLESS), style)
    inner = rng.random()
    made = [_build(fault, mode, style, inner, user=user, broken=broken) for broken in (True, False)]
    (planted, image), (_, twin) = made
    return Broken(seed, fault, mode, style, user, planted, image, twin)


def _build(fault: Fault, mode: str, style: str, inner: float, *, user: bool, broken: bool) -> tuple[Planted, bytes]:
    kernel = Kernel(mode, random.Random(inner), style=style, user=user, broken=broken)
    kernel.start()
    _distract(kernel)
    planted = fault.plant(kernel)
    return planted, kernel.image()


def _distract(kernel: Kernel) -> None:
    """Do some of what kernels do before, none of which is a mistake."""
    rng = kernel.rng
    for fill in (_garbage, _breakpoints, _calls, _registers):
        if rng.random() < 0.5:
            kernel.code.emit(fill(kernel))
    if kernel.mode != REAL and rng.random() < 0.3:
        kernel.gates[rng.choice((9, 15, 20, 31))] = 0
    kernel.code.raw(b"\x90" * rng.choice((0, 0, 1, 7, 40)))


def _garbage(kernel: Kernel) -> Fill:
    """Values on the stack, also such as are addresses of code."""
    rng = kernel.rng
    code = kernel.offset(places.HANDLERS) + rng.randrange(0x200)
    values = [rng.choice((0, 5, code, rng.randrange(1 << 15))) for _ in range(rng.randrange(1, 8))]

    def fill(a: Assembler) -> None:
        for value in values:
            a.mov(kernel.ax, value)
            a.push(kernel.ax)

    return fill


def _breakpoints(kernel: Kernel) -> Fill:
    """Exceptions that are handled."""
    times = kernel.rng.randrange(1, 4)

    def fill(a: Assembler) -> None:
        for _ in range(times):
            a.int3()

    return fill


def _calls(kernel: Kernel) -> Fill:
    pops = kernel.rng.random() < 0.5

    def fill(a: Assembler) -> None:
        a.call("next")
        a.label("next")
        a.nop()
        if pops:
            a.pop(kernel.cx)

    return fill


def _registers(kernel: Kernel) -> Fill:
    values = [kernel.rng.randrange(1 << min(kernel.bits, 32)) for _ in range(2)]

    def fill(a: Assembler) -> None:
        for register, value in zip((kernel.cx, kernel.dx), values, strict=True):
            a.mov(register, value)

    return fill
