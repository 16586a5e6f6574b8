"""The slide of a Linux kernel (KASLR): the difference between its entry points and their symbols."""

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Final, NamedTuple


class KernelValues(NamedTuple):
    """Addresses of a kernel's entry points in the CPU; 0: not set."""

    lstar: int
    cstar: int
    sysenter_eip: int
    handlers: Mapping[int, int]
    """The IDT's handlers by vector."""


ENTRY: Final = "entry_SYSCALL_64"
"""Since Linux 4.2."""
_SYSCALLS: Final = {
    "lstar": (ENTRY,),
    "cstar": ("entry_SYSCALL_compat", "ignore_sysret", "entry_SYSCALL32_ignore"),
    "sysenter_eip": ("entry_SYSENTER_compat",),
}
_HANDLERS: Final = {
    0: ("asm_exc_divide_error", "divide_error"),
    1: ("asm_exc_debug", "debug"),
    3: ("asm_exc_int3", "int3"),
    4: ("asm_exc_overflow", "overflow"),
    6: ("asm_exc_invalid_op", "invalid_op"),
    7: ("asm_exc_device_not_available", "device_not_available"),
    8: ("asm_exc_double_fault", "double_fault"),
    10: ("asm_exc_invalid_tss", "invalid_TSS"),
    11: ("asm_exc_segment_not_present", "segment_not_present"),
    12: ("asm_exc_stack_segment", "stack_segment"),
    13: ("asm_exc_general_protection", "general_protection"),
    14: ("asm_exc_page_fault", "page_fault"),
}
"""Names since Linux 5.8 and before (arch/x86/include/asm/idtentry.h, arch/x86/entry/entry_64.S)."""

LANDMARKS: Final = frozenset(chain.from_iterable((*_SYSCALLS.values(), *_HANDLERS.values())))
_AGREEING: Final = 3
"""How many entry points must agree on a slide."""
_ALIGNMENT: Final = 0x1000


def find_slide(values: KernelValues, addresses: Mapping[str, int]) -> int | None:
    """Return the slide; `addresses` are the symbols' addresses of `LANDMARKS`.

    None: the guest does not run the kernel of these symbols, or not yet. At least three entry points must agree, and
    more than half of those that are compared.
    """
    votes: Counter[int] = Counter()
    asked = 0
    found = [(getattr(values, register), names) for register, names in _SYSCALLS.items()]
    found += [(values.handlers.get(vector, 0), names) for vector, names in _HANDLERS.items()]
    for value, names in found:
        slides = {value - addresses[name] for name in names if value and name in addresses}
        asked += bool(slides)
        votes.update(slide for slide in slides if slide % _ALIGNMENT == 0)
    if not votes:
        return None
    slide, count = votes.most_common(1)[0]
    return slide if count >= _AGREEING and 2 * count > asked else None
