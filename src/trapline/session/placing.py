"""Places symbols while the guest runs: of a Linux kernel by its slide (KASLR), and of images that UEFI has loaded.

Records wait meanwhile for the next attempt, so that it is not the clock that decides which of them have names.
"""

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from trapline.arch.descriptors import GATE_PRESENT, gate_offset_64
from trapline.arch.registers import EFER
from trapline.machine.linear import read_mapped
from trapline.symbols import KernelValues, Names
from trapline.symbols.loaded import LoadedImages

if TYPE_CHECKING:
    from trapline.hypervisor.vcpu import Vcpu
    from trapline.hypervisor.vm import Vm
    from trapline.machine.processor import Processor

_EVERY: Final = 0.25
"""Seconds between two attempts."""
_DEVICES: Final = 1 << 30
"""Bytes of addresses below 4 GiB that may have no RAM."""
_GATE: Final = 16
"""Bytes of a gate in long mode (APM 4.8.4)."""
_VECTORS: Final = 32


class Placer:
    """Places the symbols of one guest."""

    def __init__(self, names: Names, images: LoadedImages | None) -> None:
        """`images` are those of a guest with UEFI firmware."""
        self._names, self._images = names, images
        self._trying = False

    def is_trying(self) -> bool:
        """Whether there will be another attempt while the guest runs."""
        return self._trying and self.waits

    @property
    def waits(self) -> bool:
        """Whether something is not placed yet."""
        return bool(self._names.unplaced) or (self._images is not None and not self._images.over)

    @contextlib.contextmanager
    def placing(self, vm: "Vm", then: Callable[[], None]) -> Iterator[None]:
        """While the guest runs, try every `_EVERY` seconds to place what is not placed yet, and call `then`."""
        ended = threading.Event()

        def attempt(vcpu: "Vcpu") -> None:
            self.place(vcpu.processor)
            then()

        def keep_trying() -> None:
            while self.waits and not ended.wait(_EVERY):
                vm.call_while_stopped(attempt)

        thread = threading.Thread(target=keep_trying, daemon=True)
        self._trying = True
        if self.waits:
            thread.start()
        try:
            yield
        finally:
            self._trying = False
            ended.set()
            if thread.ident is not None:
                thread.join()
            then()

    def before_record(self, vcpu: "Vcpu", *_: object) -> None:
        """Place the symbols of what raised an exception, which is recorded next."""
        self.place(vcpu.processor)

    def place(self, processor: "Processor") -> None:
        """Place the symbols of what the stopped guest runs."""
        values = kernel_values(processor) if self._names.unplaced else None
        if values is not None:
            self._names.place(values)
        if self._images is not None and not self._images.over:
            save = processor.vmcb.save
            if save.cpl or save.rip >> 63:  # UEFI runs at CPL 0, where addresses are physical ones
                self._images.end()
            else:
                self._images.follow(processor.memory.read, processor.memory.size + _DEVICES)


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
