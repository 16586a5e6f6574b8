"""Finds the slide of a Linux kernel (KASLR) while it runs, for symbols that were given without one."""

import contextlib
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from trapline.arch.descriptors import GATE_PRESENT, gate_offset_64
from trapline.arch.registers import EFER
from trapline.machine.linear import read_mapped
from trapline.symbols import KernelValues, Names

if TYPE_CHECKING:
    from trapline.hypervisor.vcpu import Vcpu
    from trapline.hypervisor.vm import Vm
    from trapline.machine.processor import Processor

_EVERY: Final = 0.25
"""Seconds between two attempts."""
_GATE: Final = 16
"""Bytes of a gate in long mode (APM 4.8.4)."""
_VECTORS: Final = 32


@contextlib.contextmanager
def placing(vm: "Vm", names: Names) -> Iterator[None]:
    """While the guest runs, try every `_EVERY` seconds to place the symbols whose slide is unknown."""
    ended = threading.Event()

    def attempt(vcpu: "Vcpu") -> None:
        place(vcpu.processor, names)

    def keep_trying() -> None:
        while names.unplaced and not ended.wait(_EVERY):
            vm.call_while_stopped(attempt)

    thread = threading.Thread(target=keep_trying, daemon=True)
    if names.unplaced:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def place(processor: "Processor", names: Names) -> None:
    """Place the symbols whose slide is unknown, if the stopped guest runs their kernel."""
    values = kernel_values(processor) if names.unplaced else None
    if values is not None:
        names.place(values)


def kernel_values(processor: "Processor") -> KernelValues | None:
    """Read the addresses of kernel entry points from the CPU; None: the guest is not in long mode."""
    save = processor.vmcb.save
    if not save.efer & EFER.LMA:
        return None
    size = min(save.idtr.limit + 1, _GATE * _VECTORS)
    table = read_mapped(save, processor.memory, save.idtr.base, size)
    gates = struct.iter_unpack("<QQ", table[: len(table) // _GATE * _GATE])
    handlers = {vector: gate_offset_64(*gate) for vector, gate in enumerate(gates) if gate[0] & GATE_PRESENT}
    return KernelValues(save.lstar, save.cstar, save.sysenter_eip, handlers)
