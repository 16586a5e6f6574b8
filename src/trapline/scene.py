"""What stands around a stopped guest's instruction: code, callers, stack; and where a Linux kernel has its entries."""

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.arch.descriptors import GATE_PRESENT, gate_offset_64
from trapline.arch.paging import PAGE
from trapline.arch.registers import EFER
from trapline.machine.linear import (
    address_mask,
    code_address,
    code_base,
    code_bits,
    read_mapped,
    stack_address,
    stack_base,
    stack_pointer,
)
from trapline.symbols import KernelValues, Names, backtrace
from trapline.symbols.backtrace import stack_words

if TYPE_CHECKING:
    from trapline.arch.registers import Gprs
    from trapline.arch.vmcb import Vmcb
    from trapline.machine.memory import GuestMemory

_BEFORE: Final = 48
"""Bytes of code before the instruction."""
_AFTER: Final = 64
_GATE: Final = 16
"""Bytes of a gate in long mode."""
_VECTORS: Final = 32


class Scene(NamedTuple):
    """Copies of what the guest had; all addresses are linear."""

    bits: int
    """Size of code: 16, 32 or 64."""
    address: int
    """Of the instruction."""
    code_address: int
    code: bytes
    """What is mapped around the instruction, from `code_address`."""
    callers: tuple[int, ...]
    """Return addresses by frame pointers, the innermost first: a guess."""
    stack_address: int
    stack: tuple[int, ...]
    """Words at the stack pointer."""


def take(vmcb: "Vmcb", gprs: "Gprs", memory: "GuestMemory", names: Names) -> Scene:
    """Look around a stopped guest; what is not mapped is left out."""
    save, bits = vmcb.save, code_bits(vmcb.save)
    mask, cs_base, ss_base = address_mask(save), code_base(save), stack_base(save)

    def read(gva: int, size: int) -> bytes:
        return read_mapped(save, memory, gva & mask, size)

    def stack(offset: int, size: int) -> bytes:
        return read(ss_base + offset, size)

    def is_code(rip: int) -> bool:
        address = cs_base + rip & mask
        return bool(read(address, 1)) and (not names.files or names.caller(address) is not None)

    address = code_address(save)
    start = max(address - _BEFORE, 0)
    before = read(start, address - start)
    if len(before) < address - start:  # the page before is not mapped
        start = address & -PAGE
        before = read(start, address - start)
    if len(before) < address - start:
        start, before = address, b""
    frames = backtrace(stack, gprs.rbp & mask, stack_pointer(save), bits, is_code)
    return Scene(
        bits,
        address,
        start,
        before + read(address, _AFTER),
        tuple(cs_base + frame.address & mask for frame in frames),
        stack_address(save),
        tuple(stack_words(stack, stack_pointer(save), bits)),
    )


def kernel_values(vmcb: "Vmcb", memory: "GuestMemory") -> KernelValues | None:
    """Read what tells where a Linux kernel lies; None: the guest is not in long mode."""
    save = vmcb.save
    if not save.efer & EFER.LMA:
        return None
    table = read_mapped(save, memory, save.idtr.base, min(save.idtr.limit + 1, _GATE * _VECTORS))
    gates = struct.iter_unpack("<QQ", table[: len(table) // _GATE * _GATE])
    handlers = {vector: gate_offset_64(*gate) for vector, gate in enumerate(gates) if gate[0] & GATE_PRESENT}
    return KernelValues(save.lstar, save.cstar, save.sysenter_eip, handlers)
