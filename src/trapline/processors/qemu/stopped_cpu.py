"""What the CPU of the stopped guest is asked for: the monitor executes an instruction, and hands back."""

from trapline.arch import fxsave
from trapline.errors import UsageError

from .handover import Handover
from .layout import Command, SharedMemory


class StoppedCpu:
    """Answers by the CPU itself. Only while the guest is stopped. All raise ProcessorLost when QEMU has ended."""

    def __init__(self, shared: SharedMemory, handshake: Handover) -> None:
        self._gprs, self._fpu = shared.gprs, shared.fpu
        self._handshake = handshake

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See `machine.Processor.cpuid`."""
        gprs = self._gprs
        kept = gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx
        gprs.rax, gprs.rcx = leaf, subleaf
        self._handshake.call(Command.CPUID)
        answer = gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx
        gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx = kept
        return answer

    def read_fpu(self) -> bytes:
        """See `machine.Processor.read_fpu`."""
        self._handshake.call(Command.FXSAVE)
        return bytes(self._fpu)

    def write_fpu(self, image: bytes) -> None:
        """See `machine.Processor.write_fpu`."""
        if reserved := fxsave.refused(image):
            raise UsageError(f"MXCSR has no bits {reserved:#x}")
        self._fpu[:] = image
        self._handshake.call(Command.FXRSTOR)
