"""The CPU and the memory of a stopped guest, for users of the library."""

from trapline.asm.disassembler import Instruction, disassemble
from trapline.errors import FaultError, UsageError
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.linear import (
    LONGEST,
    address_mask,
    code_address,
    code_bits,
    read_linear,
    read_mapped,
    write_linear,
)
from trapline.machine.memory import GuestMemory
from trapline.machine.registers import Check, Registers
from trapline.report.crash import Frame
from trapline.symbols import Names, Symbol

from .crash import callers


def check_size(size: int) -> None:
    """Raise UsageError for a size of memory that cannot be."""
    if size < 0:
        raise UsageError(f"memory of {size} bytes cannot be read")


class Memory:
    """The guest's physical memory, by gpa."""

    def __init__(self, memory: GuestMemory, check: Check) -> None:
        self._memory, self._check = memory, check

    @property
    def size(self) -> int:
        """The size of the guest's RAM in bytes."""
        return self._memory.size

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError where there is no memory."""
        self._check(False)
        check_size(size)
        try:
            return self._memory.read(gpa, size)
        except LookupError as error:
            raise FaultError(gpa, str(error)) from error

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises FaultError where there is no RAM."""
        self._check(True)
        try:
            self._memory.write(gpa, data)
        except LookupError as error:
            raise FaultError(gpa, str(error)) from error


class Cpu:
    """One CPU of a stopped guest. Addresses are linear (gva)."""

    def __init__(self, vcpu: Vcpu, names: Names, syntax: str, check: Check) -> None:
        self.vcpu, self._names, self._syntax, self._check = vcpu, names, syntax, check
        self.number: int = vcpu.number
        """The number of the CPU, from 0."""
        self.registers: Registers = Registers(vcpu.save, vcpu.processor.gprs, check)
        """Its registers, which can be written."""

    @property
    def tsc(self) -> int:
        """The time stamp counter at which the guest stopped."""
        return self.vcpu.processor.tsc

    @property
    def bits(self) -> int:
        """The size of the code that it executes: 16, 32 or 64."""
        self._check(False)
        return code_bits(self.vcpu.save)

    @property
    def address(self) -> int:
        """The linear address of the instruction at CS:RIP."""
        self._check(False)
        return code_address(self.vcpu.save)

    @property
    def symbol(self) -> Symbol | None:
        """The symbol of that address; None: unknown."""
        return self._names.lookup(self.address)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError(address) where nothing is mapped."""
        self._check(False)
        check_size(size)
        return read_linear(self.vcpu.save, self.vcpu.processor.memory, address, size)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes, also in read-only pages; raises FaultError(address) where nothing is mapped."""
        self._check(True)
        write_linear(self.vcpu.save, self.vcpu.processor.memory, address, data)

    def disassemble(self, count: int = 1, address: int | None = None) -> list[Instruction]:
        """Return up to `count` instructions from an address, by default CS:RIP; fewer where mapped memory ends."""
        at = self.address if address is None else address
        save, memory = self.vcpu.save, self.vcpu.processor.memory
        code = read_mapped(save, memory, at & address_mask(save), LONGEST * count)
        return disassemble(code, at, self.bits, syntax=self._syntax, count=count)

    def backtrace(self) -> tuple[Frame, ...]:
        """Return the callers, innermost first: by call frame information of the symbols, or else by frame pointers.

        By the latter they are a guess, and none where the guest keeps no frame pointers.
        """
        self._check(False)
        return callers(self.registers, self.vcpu.processor.memory, self._names)
