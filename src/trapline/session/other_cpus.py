"""What the CPUs do on which the end of a run is not."""

from collections.abc import Iterator

from trapline.arch.registers import RFLAGS
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.linear import code_address
from trapline.symbols import Names


def describe_others(vcpu: Vcpu, names: Names) -> Iterator[str]:
    """Yield a sentence on each CPU of the stopped guest but this one."""
    for other in vcpu.cpus:
        if other is vcpu:
            continue
        if other.waits:
            yield f"CPU {other.number} waits for a startup IPI."
            continue
        save = other.save
        symbol = names.lookup(code_address(save))
        place = f"{save.cs.selector:04x}:{save.rip:x}{'' if symbol is None else f' {symbol}'}"
        does = "waits in a HLT" if other.processor.halted else "executes"
        interrupts = "on" if save.rflags & RFLAGS.IF else "off"
        yield f"CPU {other.number} {does} at {place}, cpl {save.cpl}, interrupts {interrupts}."
