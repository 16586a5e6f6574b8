"""The classic triple faults: an exception that cannot be delivered, a #DF that cannot be either, and the end."""

from functools import partial
from typing import Final

from trapline.arch.vectors import VECTORS, Vector
from trapline.asm.operands import RAX, RSP

from . import places
from .kernel import Kernel, guest
from .programs import enter_user
from .sample import End, Sample
from .tables import Gate

_NO_IDT: Final = "UD2, and no IDT was ever loaded"


def _undefined(kernel: Kernel) -> None:
    kernel.code.ud2()


def _idt_limit(kernel: Kernel) -> None:
    kernel.idt_limit = 0
    kernel.code.ud2()


def _gate_not_present(kernel: Kernel) -> None:
    kernel.gates = {row.vector: Gate(places.CODE, present=False) for row in VECTORS}
    kernel.code.ud2()


def _bad_selector(kernel: Kernel) -> None:
    kernel.gates = {row.vector: Gate(places.CODE, selector=places.NO_SELECTOR) for row in VECTORS}
    kernel.code.ud2()


def _non_canonical_handler(kernel: Kernel) -> None:
    kernel.gates = {row.vector: Gate(places.NON_CANONICAL) for row in VECTORS}
    kernel.code.ud2()


def _bad_tss_stack(kernel: Kernel) -> None:
    kernel.rsp0 = places.NON_CANONICAL
    kernel.user.ud2()
    enter_user(kernel)


def _stack_overflow(kernel: Kernel) -> None:
    kernel.code.label("recurse")
    kernel.code.call("recurse")


def _no_ist(kernel: Kernel) -> None:
    kernel.code.mov(RSP, places.UNMAPPED)
    kernel.code.mov(RAX, 0)
    kernel.code.ud2()


_ROWS: Final = (
    ("idt-limit-0", (Vector.UD, Vector.GP), "UD2, and the limit of the IDT is 0", _idt_limit),
    ("gate-not-present", (Vector.UD, Vector.NP), "UD2, and no gate is present", _gate_not_present),
    ("bad-selector", (Vector.UD, Vector.GP), "UD2, and no gate has a selector in the GDT", _bad_selector),
    ("non-canonical-handler", (Vector.UD, Vector.GP), "UD2, and no handler is canonical", _non_canonical_handler),
    ("bad-tss-stack", (Vector.UD, Vector.SS), "UD2 at CPL 3, and RSP0 in the TSS is not canonical", _bad_tss_stack),
    ("stack-overflow", (Vector.PF,), "recursion until the stack ends, and #DF has none of its own", _stack_overflow),
    ("no-ist", (Vector.UD, Vector.PF), "UD2 without a stack, and #DF has none of its own", _no_ist),
)

SHUTDOWNS: Final = (
    Sample(
        "no-idt",
        _NO_IDT,
        (Vector.UD, Vector.DF, Vector.GP),
        End.SHUTDOWN,
        partial(guest, _NO_IDT, _undefined, loads_idt=False),
    ),
    *(
        Sample(name, description, tuple(sorted((*vectors, Vector.DF))), End.SHUTDOWN, partial(guest, description, fill))
        for name, vectors, description, fill in _ROWS
    ),
)
